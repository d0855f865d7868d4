//! A connected shim: the calls of the Task service, each with a deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_proto::protobuf::well_known_types::any::Any;
use berth_proto::protobuf::well_known_types::empty::Empty;
use berth_proto::protobuf::{EnumOrUnknown, Message, MessageField};
use berth_proto::task::{self, Status, TaskApi};
use berth_proto::ttrpc::{self, r#async::transport::Socket};
use berth_proto::{call, code, instant, pack_as};
use berth_types::{ContainerId, ExecId, Signal};
use tokio::net::UnixStream;

use crate::answer::{self, Endpoint};
use crate::{
    AttachOptions, CreateTask, ExitStatus, IoUris, ProcessInfo, Reports, RootfsMount, ShimError, ShimOptions,
    StateReply, TaskState, attach, launch,
};

/// Creating and starting may wait for hooks and slow disks.
const SLOW_CALL: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(30);
/// File in the bundle that holds the shim's address.
const ADDRESS_FILE: &str = "address";
const ADDRESS_BYTES_MAX: u64 = 4096;
/// What the shim answered when it started, kept by us: not every shim writes an address.
const BOOTSTRAP_FILE: &str = "bootstrap.json";

/// A connected shim. One connection carries all calls, an open `wait` among them. Cheap to clone.
#[derive(Clone)]
pub struct ShimClient {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    client: ttrpc::r#async::Client,
    api: TaskApi,
    id: String,
    bundle: PathBuf,
}

impl fmt::Debug for ShimClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShimClient").field("id", &self.inner.id).field("api", &self.inner.api).finish_non_exhaustive()
    }
}

impl ShimClient {
    /// Executes the shim's `start` and connects to it.
    ///
    /// # Errors
    /// `Internal` with the shim's own words when it could not start, `DeadlineExceeded` when it said nothing.
    pub async fn start(options: &ShimOptions) -> Result<Self, ShimError> {
        let answer = launch::start(options).await?;
        let endpoint = answer::parse(&answer)?;
        if options.reports == Reports::All {
            let path = options.bundle.join(BOOTSTRAP_FILE);
            std::fs::write(&path, &answer).map_err(|source| ShimError::Address { path, source })?;
        }
        Self::connect(endpoint, options.id.as_str().to_owned(), options.bundle.clone()).await
    }

    /// Finds a running shim again by `<bundle>/bootstrap.json`, else `<bundle>/address`.
    ///
    /// # Errors
    /// `NotFound` without an address, `Unavailable` when nothing listens there any more.
    pub async fn reconnect(bundle: &Path) -> Result<Self, ShimError> {
        let kept = bundle.join(BOOTSTRAP_FILE);
        let path = if kept.exists() { kept } else { bundle.join(ADDRESS_FILE) };
        let mut text = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(ADDRESS_BYTES_MAX).read_to_end(&mut text))
            .map_err(|source| ShimError::Address { path: path.clone(), source })?;
        let endpoint = answer::parse(&text)?;
        let id = bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::connect(endpoint, id, bundle.to_owned()).await
    }

    /// Cleans up after a shim that died: executes its `delete`, which kills what is left of the task and removes its cgroup.
    ///
    /// # Errors
    /// `Internal` with the shim's own words.
    pub async fn delete_dead(options: &ShimOptions) -> Result<ExitStatus, ShimError> {
        launch::delete(options).await
    }

    async fn connect(endpoint: Endpoint, id: String, bundle: PathBuf) -> Result<Self, ShimError> {
        let path = endpoint.socket;
        let failed = |source| ShimError::Connect { path: path.clone(), source };
        let stream = tokio::time::timeout(CALL, UnixStream::connect(&path))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let client = ttrpc::r#async::Client::new(Socket::from(stream));
        Ok(Self { inner: Arc::new(Inner { client, api: endpoint.api, id, bundle }) })
    }

    pub(crate) fn id(&self) -> String {
        self.inner.id.clone()
    }

    pub(crate) fn renamed(&self, id: String, bundle: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { id, bundle, ..(*self.inner).clone() }) }
    }

    async fn open_call<Req: Message, Resp: Message>(
        &self,
        method: &'static str,
        request: &Req,
    ) -> Result<Resp, ShimError> {
        self.service_call(self.inner.api.service(), method, request).await
    }

    /// A call without a deadline under this service's name.
    pub(crate) async fn service_call<Req: Message, Resp: Message>(
        &self,
        service: &'static str,
        method: &'static str,
        request: &Req,
    ) -> Result<Resp, ShimError> {
        call::unary(&self.inner.client, service, method, request).await.map_err(|error| match error {
            ttrpc::Error::RpcStatus(status) => {
                let class = code::class_of(status.code.enum_value_or(ttrpc::Code::UNKNOWN));
                ShimError::Remote { class, message: status.message }
            }
            other => ShimError::Gone { call: method, detail: other.to_string() },
        })
    }

    async fn call<Req: Message, Resp: Message>(
        &self,
        method: &'static str,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ShimError> {
        tokio::time::timeout(timeout, self.open_call(method, request))
            .await
            .unwrap_or(Err(ShimError::Deadline { call: method, seconds: timeout.as_secs() }))
    }

    /// Creates the container up to the point where its init waits to exec; returns init's pid on the host.
    ///
    /// # Errors
    /// The shim's, with the failing step.
    pub async fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        rootfs: &[RootfsMount],
        io: &IoUris,
    ) -> Result<u32, ShimError> {
        debug_assert_eq!(id.as_str(), self.inner.id, "a shim is asked for its own task");
        self.create_task(bundle, &CreateTask { rootfs: rootfs.to_vec(), io: io.clone(), ..CreateTask::default() }).await
    }

    /// The same with everything the service takes.
    ///
    /// # Errors
    /// The shim's, with the failing step.
    pub async fn create_task(&self, bundle: &Path, new: &CreateTask) -> Result<u32, ShimError> {
        let mounts = new.rootfs.iter().map(|mount| task::Mount {
            type_: mount.fstype.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
            ..Default::default()
        });
        let request = task::CreateTaskRequest {
            id: self.id(),
            bundle: bundle.display().to_string(),
            rootfs: mounts.collect(),
            terminal: new.io.terminal,
            stdin: new.io.stdin.clone(),
            stdout: new.io.stdout.clone(),
            stderr: new.io.stderr.clone(),
            checkpoint: new.checkpoint.clone(),
            options: packed(new.options.clone()),
            ..Default::default()
        };
        self.call("Create", &request, SLOW_CALL).await.map(|reply: task::CreateTaskResponse| reply.pid)
    }

    /// Lets a created process exec; `exec_id` None: the container's init. Returns its pid on the host.
    ///
    /// # Errors
    /// The shim's; a program that cannot be executed makes `ShimError::is_exec_failure` true.
    pub async fn start_process(&self, exec_id: Option<&ExecId>) -> Result<u32, ShimError> {
        let request = task::StartRequest { id: self.id(), exec_id: text(exec_id), ..Default::default() };
        self.call("Start", &request, SLOW_CALL).await.map(|reply: task::StartResponse| reply.pid)
    }

    /// Adds a process; `process` is the JSON of the runtime-spec's `Process`. It runs after `start_process`.
    ///
    /// # Errors
    /// `AlreadyExists`, `FailedPrecondition` (task not running), `InvalidArgument`.
    pub async fn exec(&self, exec_id: &ExecId, process: &[u8], io: &IoUris) -> Result<(), ShimError> {
        let request = task::ExecProcessRequest {
            id: self.id(),
            exec_id: exec_id.as_str().to_owned(),
            terminal: io.terminal,
            stdin: io.stdin.clone(),
            stdout: io.stdout.clone(),
            stderr: io.stderr.clone(),
            spec: MessageField::some(pack_as(
                "types.containerd.io/opencontainers/runtime-spec/1/Process",
                process.to_vec(),
            )),
            ..Default::default()
        };
        self.call("Exec", &request, CALL).await.map(|_: Empty| ())
    }

    /// Returns when the process has ended, however long that takes.
    ///
    /// # Errors
    /// `NotFound` for an unknown process, `Unavailable` when the shim died meanwhile.
    pub async fn wait(&self, exec_id: Option<&ExecId>) -> Result<ExitStatus, ShimError> {
        let request = task::WaitRequest { id: self.id(), exec_id: text(exec_id), ..Default::default() };
        let reply: task::WaitResponse = self.open_call("Wait", &request).await?;
        Ok(ExitStatus { code: reply.exit_status, exited_at: instant::from_wire(&reply.exited_at) })
    }

    /// Sends a signal to one process, or with `all` to every process of the container.
    ///
    /// # Errors
    /// `NotFound` when the process has ended.
    pub async fn kill(&self, exec_id: Option<&ExecId>, signal: Signal, all: bool) -> Result<(), ShimError> {
        self.kill_number(exec_id, u32::try_from(signal.number()).unwrap_or_default(), all).await
    }

    /// The same with a signal's number as it came.
    ///
    /// # Errors
    /// `NotFound` when the process has ended.
    pub async fn kill_number(&self, exec_id: Option<&ExecId>, signal: u32, all: bool) -> Result<(), ShimError> {
        let request = task::KillRequest { id: self.id(), exec_id: text(exec_id), signal, all, ..Default::default() };
        self.call("Kill", &request, CALL).await.map(|_: Empty| ())
    }

    /// Forgets a stopped process after its output is flushed; for the init, removes the container.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs.
    pub async fn delete(&self, exec_id: Option<&ExecId>) -> Result<ExitStatus, ShimError> {
        let request = task::DeleteRequest { id: self.id(), exec_id: text(exec_id), ..Default::default() };
        let reply: task::DeleteResponse = self.call("Delete", &request, SLOW_CALL).await?;
        Ok(ExitStatus { code: reply.exit_status, exited_at: instant::from_wire(&reply.exited_at) })
    }

    /// # Errors
    /// `NotFound` before create and after delete.
    pub async fn state(&self, exec_id: Option<&ExecId>) -> Result<StateReply, ShimError> {
        let request = task::StateRequest { id: self.id(), exec_id: text(exec_id), ..Default::default() };
        let reply: task::StateResponse = self.call("State", &request, CALL).await?;
        let state = task_state(reply.status)?;
        let exited_at = instant::from_wire(&reply.exited_at);
        let exit = (state == TaskState::Stopped).then_some(ExitStatus { code: reply.exit_status, exited_at });
        let io = IoUris { stdin: reply.stdin, stdout: reply.stdout, stderr: reply.stderr, terminal: reply.terminal };
        Ok(StateReply { state, pid: reply.pid, exit, io })
    }

    /// # Errors
    /// `NotFound` without a task.
    pub async fn pids(&self) -> Result<Vec<u32>, ShimError> {
        Ok(self.processes().await?.into_iter().map(|process| process.pid).collect())
    }

    /// # Errors
    /// `NotFound` without a task.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, ShimError> {
        let request = task::PidsRequest { id: self.id(), ..Default::default() };
        let reply: task::PidsResponse = self.call("Pids", &request, CALL).await?;
        let process = |process: task::ProcessInfo| ProcessInfo {
            pid: process.pid,
            info: process.info.into_option().map(|any| (any.type_url, any.value)),
        };
        Ok(reply.processes.into_iter().map(process).collect())
    }

    /// Measurements of the task's cgroup: type URL and message.
    ///
    /// # Errors
    /// `NotFound` without a task.
    pub async fn stats(&self) -> Result<(String, Vec<u8>), ShimError> {
        let request = task::StatsRequest { id: self.id(), ..Default::default() };
        let reply: task::StatsResponse = self.call("Stats", &request, CALL).await?;
        let any = reply.stats.into_option().unwrap_or_default();
        Ok((any.type_url, any.value))
    }

    /// The same in numbers; `None` when the shim measures in a form we do not know.
    ///
    /// # Errors
    /// `NotFound` without a task.
    pub async fn usage(&self) -> Result<Option<crate::Usage>, ShimError> {
        let (type_url, value) = self.stats().await?;
        Ok(crate::usage::parse(&type_url, &value))
    }

    /// Writes an image of the task's processes to a directory.
    ///
    /// # Errors
    /// The shim's; `Unimplemented` where it cannot.
    pub async fn checkpoint(&self, path: &str, options: Option<(String, Vec<u8>)>) -> Result<(), ShimError> {
        let request = task::CheckpointTaskRequest {
            id: self.id(),
            path: path.to_owned(),
            options: packed(options),
            ..Default::default()
        };
        self.call("Checkpoint", &request, SLOW_CALL).await.map(|_: Empty| ())
    }

    /// The shim's own pid.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn shim_pid(&self) -> Result<u32, ShimError> {
        let request = task::ConnectRequest { id: self.id(), ..Default::default() };
        self.call("Connect", &request, CALL).await.map(|reply: task::ConnectResponse| reply.shim_pid)
    }

    /// # Errors
    /// `FailedPrecondition` unless it is running.
    pub async fn pause(&self) -> Result<(), ShimError> {
        let request = task::PauseRequest { id: self.id(), ..Default::default() };
        self.call("Pause", &request, CALL).await.map(|_: Empty| ())
    }

    /// # Errors
    /// `FailedPrecondition` unless it is paused.
    pub async fn resume(&self) -> Result<(), ShimError> {
        let request = task::ResumeRequest { id: self.id(), ..Default::default() };
        self.call("Resume", &request, CALL).await.map(|_: Empty| ())
    }

    /// # Errors
    /// `FailedPrecondition` when the process has no terminal.
    pub async fn resize_pty(&self, exec_id: Option<&ExecId>, rows: u16, columns: u16) -> Result<(), ShimError> {
        let request = task::ResizePtyRequest {
            id: self.id(),
            exec_id: text(exec_id),
            width: columns.into(),
            height: rows.into(),
            ..Default::default()
        };
        self.call("ResizePty", &request, CALL).await.map(|_: Empty| ())
    }

    /// Closes the process's standard input once what was sent to it is written.
    ///
    /// # Errors
    /// `NotFound` for an unknown process.
    pub async fn close_io(&self, exec_id: Option<&ExecId>) -> Result<(), ShimError> {
        let request = task::CloseIORequest { id: self.id(), exec_id: text(exec_id), stdin: true, ..Default::default() };
        self.call("CloseIO", &request, CALL).await.map(|_: Empty| ())
    }

    /// JSON of `berth_oci::runtime::LinuxResources`.
    ///
    /// # Errors
    /// The runtime's, naming the limit that the host refused.
    pub async fn update(&self, resources: &[u8]) -> Result<(), ShimError> {
        self.update_annotated(resources, BTreeMap::new()).await
    }

    /// The same with annotations, which some shims act on.
    ///
    /// # Errors
    /// The runtime's, naming the limit that the host refused.
    pub async fn update_annotated(
        &self,
        resources: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> Result<(), ShimError> {
        let packed = pack_as("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources.to_vec());
        let request = task::UpdateTaskRequest {
            id: self.id(),
            resources: MessageField::some(packed),
            annotations: annotations.into_iter().collect(),
            ..Default::default()
        };
        self.call("Update", &request, CALL).await.map(|_: Empty| ())
    }

    /// Asks the shim to end; it answers first. A shim that still has a task refuses.
    ///
    /// # Errors
    /// `FailedPrecondition` while the task is not deleted.
    pub async fn shutdown(&self) -> Result<(), ShimError> {
        let request = task::ShutdownRequest { id: self.id(), ..Default::default() };
        self.call("Shutdown", &request, CALL).await.map(|_: Empty| ())
    }

    /// Hands a client's connected stream to the shim, which from then on moves bytes between it and the process itself,
    /// so an attached client survives the daemon.
    ///
    /// # Errors
    /// `NotFound` for an unknown process, `Unavailable` when the shim has gone.
    pub async fn attach(
        &self,
        exec_id: Option<&ExecId>,
        client: std::os::fd::OwnedFd,
        options: &AttachOptions,
    ) -> Result<(), ShimError> {
        let request = berth_proto::attach::Request {
            exec_id: text(exec_id),
            options: berth_proto::attach::Options {
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                detach_keys: options.detach_keys.clone(),
                early_input: options.early_input.clone(),
            },
        };
        attach::attach(&self.inner.bundle, &request, client).await
    }
}

pub(crate) fn packed(any: Option<(String, Vec<u8>)>) -> MessageField<Any> {
    any.map(|(type_url, value)| pack_as(&type_url, value)).map_or_else(MessageField::none, MessageField::some)
}

fn text(exec_id: Option<&ExecId>) -> String {
    exec_id.map(|id| id.as_str().to_owned()).unwrap_or_default()
}

fn task_state(status: EnumOrUnknown<Status>) -> Result<TaskState, ShimError> {
    match status.enum_value() {
        Ok(Status::CREATED) => Ok(TaskState::Created),
        Ok(Status::RUNNING) => Ok(TaskState::Running),
        Ok(Status::PAUSED | Status::PAUSING) => Ok(TaskState::Paused),
        Ok(Status::STOPPED) => Ok(TaskState::Stopped),
        Ok(Status::UNKNOWN) => Ok(TaskState::Unknown),
        Err(_) => Err(ShimError::Answer { answer: format!("task status {}", status.value()) }),
    }
}
