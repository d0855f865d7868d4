//! Tasks: the running side of a container, driven through its shim; the life cycle is checked here before the shim is asked.
//!
//! Order of a start: bundle -> shim -> create -> start -> wait (a call kept open) -> delete -> shutdown. The shim keeps the exit status
//! until `delete`, so a daemon that was away learns it later.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_shim_client::{
    AttachOptions, CreateTask, ExitStatus, IoUris, Reports, RootfsMount, RuntimeChoice, ShimClient, ShimError,
    ShimOptions, StateReply, TaskState,
};
use berth_types::{Classify, ContainerId, ErrorClass, ExecId, Signal};
use parking_lot::Mutex;

use crate::{Bundle, Operation, Phase, SealedBinary, TransitionError};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    #[error(transparent)]
    Transition(#[from] TransitionError),
    #[error("{operation} failed in the shim of {}", .id.short())]
    Shim { operation: &'static str, id: ContainerId, source: ShimError },
}

impl Classify for TaskError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Transition(error) => error.class(),
            Self::Shim { source, .. } => source.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Transition(error) => error.hint(),
            Self::Shim { source, .. } => source.hint(),
        }
    }
}

impl TaskError {
    /// The shim answered (with an error of the container's), as opposed to being gone or unreachable.
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Transition(_) | Self::Shim { source: ShimError::Remote { .. }, .. })
    }
}

/// Makes tasks and finds them again.
#[derive(Debug)]
pub struct TaskManager {
    tasks_dir: PathBuf,
    socket_dir: PathBuf,
    events_address: PathBuf,
    namespace: String,
    binary: Arc<SealedBinary>,
    search: Vec<PathBuf>,
}

/// A task; cheap to share. Callers serialise operations that change the phase.
#[derive(Debug)]
pub struct Task {
    id: ContainerId,
    bundle: Bundle,
    shim: ShimClient,
    inner: Mutex<Inner>,
}

#[derive(Debug, Clone, Copy)]
struct Inner {
    phase: Phase,
    pid: u32,
}

impl TaskManager {
    /// `search`: directories in which shims find what they start.
    pub fn new(
        tasks_dir: PathBuf,
        socket_dir: PathBuf,
        events_address: PathBuf,
        binary: Arc<SealedBinary>,
        search: Vec<PathBuf>,
    ) -> Self {
        Self { tasks_dir, socket_dir, events_address, namespace: "default".to_owned(), binary, search }
    }

    pub fn tasks_dir(&self) -> &Path {
        &self.tasks_dir
    }

    pub fn bundle(&self, id: &ContainerId) -> Bundle {
        Bundle::of(&self.tasks_dir, id)
    }

    fn shim_options(&self, id: &ContainerId) -> ShimOptions {
        ShimOptions {
            binary: self.binary.path(),
            namespace: self.namespace.clone(),
            id: id.clone(),
            bundle: self.bundle(id).path().to_owned(),
            socket_dir: self.socket_dir.clone(),
            events_address: self.events_address.clone(),
            grpc_address: self.events_address.clone(),
            runtime_options: None,
            reports: Reports::OutOfMemory,
            search: self.search.clone(),
        }
    }

    /// Starts a shim for an existing bundle.
    ///
    /// # Errors
    /// The shim's class.
    pub async fn start_shim(&self, id: &ContainerId) -> Result<Task, TaskError> {
        let bundle = self.bundle(id);
        let shim = ShimClient::start(&self.shim_options(id)).await.map_err(|source| TaskError::Shim {
            operation: "start",
            id: id.clone(),
            source,
        })?;
        Ok(Task { id: id.clone(), bundle, shim, inner: Mutex::new(Inner { phase: Phase::Starting, pid: 0 }) })
    }

    /// Ends what a dead shim left behind: its processes and its cgroup. The bundle stays.
    ///
    /// # Errors
    /// With the clean-up's own words.
    pub async fn clean_up_dead(&self, id: &ContainerId) -> Result<ExitStatus, TaskError> {
        ShimClient::delete_dead(&self.shim_options(id)).await.map_err(|source| TaskError::Shim {
            operation: "clean-up",
            id: id.clone(),
            source,
        })
    }

    /// Finds a task whose shim outlived us, with the status of its init if that has ended meanwhile.
    ///
    /// # Errors
    /// When no shim answers for the bundle.
    pub async fn find(&self, id: &ContainerId) -> Result<(Task, Option<ExitStatus>), TaskError> {
        let bundle = self.bundle(id);
        let error = |source| TaskError::Shim { operation: "reconnect", id: id.clone(), source };
        let shim = ShimClient::reconnect(bundle.path()).await.map_err(error)?;
        let (inner, exit) = match shim.state(None).await {
            Ok(reply) => {
                let phase = match reply.state {
                    TaskState::Created => Phase::Created,
                    TaskState::Running | TaskState::Unknown => Phase::Running,
                    TaskState::Paused => Phase::Paused,
                    TaskState::Stopped => Phase::Stopped,
                };
                (Inner { phase, pid: reply.pid }, reply.exit)
            }
            // The daemon ended between the shim's start and Create: a shim without a task.
            Err(ShimError::Remote { class: ErrorClass::NotFound, .. }) => {
                (Inner { phase: Phase::Starting, pid: 0 }, None)
            }
            Err(other) => return Err(error(other)),
        };
        Ok((Task { id: id.clone(), bundle, shim, inner: Mutex::new(inner) }, exit))
    }
}

impl Task {
    pub fn phase(&self) -> Phase {
        self.inner.lock().phase
    }

    /// Host pid of init; 0 before create.
    pub fn pid(&self) -> u32 {
        self.inner.lock().pid
    }

    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The connection to its shim, for calls that change no phase.
    pub const fn shim(&self) -> &ShimClient {
        &self.shim
    }

    fn check(&self, operation: Operation) -> Result<(), TransitionError> {
        self.phase().after(operation).map(drop)
    }

    /// After the shim has done it. The exit may have come in between; then it stays as it is.
    fn commit(&self, operation: Operation) {
        let mut inner = self.inner.lock();
        if let Ok(next) = inner.phase.after(operation) {
            inner.phase = next;
        }
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(ShimError) -> TaskError {
        let id = self.id.clone();
        move |source| TaskError::Shim { operation, id, source }
    }

    /// Makes the container up to the point where init waits; returns its pid. `runtime`: another than ours.
    ///
    /// # Errors
    /// The shim's, with the step that failed.
    pub async fn create(
        &self,
        rootfs: &[RootfsMount],
        io: &IoUris,
        runtime: Option<&RuntimeChoice>,
    ) -> Result<u32, TaskError> {
        self.check(Operation::Create)?;
        let new = CreateTask {
            rootfs: rootfs.to_vec(),
            io: io.clone(),
            options: runtime.map(berth_shim_client::choice_options),
            ..CreateTask::default()
        };
        let pid = self.shim.create_task(self.bundle.path(), &new).await.map_err(self.error("create"))?;
        self.inner.lock().pid = pid;
        self.commit(Operation::Create);
        Ok(pid)
    }

    /// Lets init execute the program.
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` when the program cannot be executed; else the shim's.
    pub async fn start(&self) -> Result<(), TaskError> {
        self.check(Operation::Start)?;
        self.shim.start_process(None).await.map_err(self.error("start"))?;
        self.commit(Operation::Start);
        Ok(())
    }

    /// Waits until init has ended.
    ///
    /// # Errors
    /// When the shim is gone.
    pub async fn wait(&self) -> Result<ExitStatus, TaskError> {
        let status = self.shim.wait(None).await.map_err(self.error("wait"))?;
        self.commit(Operation::Exit);
        Ok(status)
    }

    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn kill(&self, signal: Signal, is_for_all: bool) -> Result<(), TaskError> {
        self.check(Operation::Kill)?;
        self.shim.kill(None, signal, is_for_all).await.map_err(self.error("kill"))
    }

    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn pause(&self) -> Result<(), TaskError> {
        self.check(Operation::Pause)?;
        self.shim.pause().await.map_err(self.error("pause"))?;
        self.commit(Operation::Pause);
        Ok(())
    }

    /// # Errors
    /// `FailedPrecondition` when it is not paused.
    pub async fn resume(&self) -> Result<(), TaskError> {
        self.check(Operation::Resume)?;
        self.shim.resume().await.map_err(self.error("resume"))?;
        self.commit(Operation::Resume);
        Ok(())
    }

    /// `resources`: JSON of the OCI resources.
    ///
    /// # Errors
    /// The kernel's, through the shim.
    pub async fn update(&self, resources: &[u8]) -> Result<(), TaskError> {
        self.check(Operation::Update)?;
        self.shim.update(resources).await.map_err(self.error("update"))
    }

    /// # Errors
    /// When the shim is gone.
    pub async fn pids(&self) -> Result<Vec<u32>, TaskError> {
        self.shim.pids().await.map_err(self.error("list processes"))
    }

    /// # Errors
    /// When there is no terminal.
    pub async fn resize(&self, exec_id: Option<&ExecId>, rows: u16, columns: u16) -> Result<(), TaskError> {
        self.shim.resize_pty(exec_id, rows, columns).await.map_err(self.error("resize"))
    }

    /// Hands a client's stream over; legal as soon as the process is created.
    ///
    /// # Errors
    /// The shim's.
    pub async fn attach(
        &self,
        exec_id: Option<&ExecId>,
        client: OwnedFd,
        options: &AttachOptions,
    ) -> Result<(), TaskError> {
        self.shim.attach(exec_id, client, options).await.map_err(self.error("attach"))
    }

    /// Registers a further process; `process` is JSON of the OCI process.
    ///
    /// # Errors
    /// `FailedPrecondition` when the task is paused or does not run.
    pub async fn exec(&self, exec_id: &ExecId, process: &[u8], io: &IoUris) -> Result<(), TaskError> {
        self.check(Operation::Exec)?;
        self.shim.exec(exec_id, process, io).await.map_err(self.error("exec"))
    }

    /// # Errors
    /// `NotFound` and `PermissionDenied` when the program cannot be executed; else the shim's.
    pub async fn exec_start(&self, exec_id: &ExecId) -> Result<u32, TaskError> {
        self.check(Operation::Exec)?;
        self.shim.start_process(Some(exec_id)).await.map_err(self.error("exec start"))
    }

    /// # Errors
    /// When the shim is gone.
    pub async fn exec_wait(&self, exec_id: &ExecId) -> Result<ExitStatus, TaskError> {
        self.shim.wait(Some(exec_id)).await.map_err(self.error("exec wait"))
    }

    /// What the shim knows of an added process.
    ///
    /// # Errors
    /// `NotFound` when it knows nothing; when the shim is gone.
    pub async fn exec_state(&self, exec_id: &ExecId) -> Result<StateReply, TaskError> {
        self.shim.state(Some(exec_id)).await.map_err(self.error("exec state"))
    }

    /// # Errors
    /// When the process still runs or the shim is gone.
    pub async fn exec_delete(&self, exec_id: &ExecId) -> Result<(), TaskError> {
        self.shim.delete(Some(exec_id)).await.map(drop).map_err(self.error("exec delete"))
    }

    /// Removes what is left of an ended (or never started) task: cgroup and state, then the shim itself.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs.
    pub async fn delete(&self) -> Result<(), TaskError> {
        self.check(Operation::Delete)?;
        let deleted = match self.phase() {
            Phase::Starting => Ok(()),
            _ => self.shim.delete(None).await.map(drop).map_err(self.error("delete")),
        };
        let shut_down = self.shim.shutdown().await.map_err(self.error("shut down"));
        deleted?;
        self.commit(Operation::Delete);
        shut_down
    }
}
