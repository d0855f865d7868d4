//! The Task service: wire messages in, calls on the task, wire messages out. No rules live here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use berth_proto::instant;
use berth_proto::protobuf::MessageField;
use berth_proto::task::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, Status as WireStatus, Task, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use berth_proto::ttrpc::{Result, r#async::TtrpcContext};

use crate::error::TaskError;
use crate::process::{Addresses, Status};
use crate::task::{CreateRequest, ExecRequest, Options, Shim};

pub(crate) struct Service(pub(crate) Arc<Shim>);

/// Also when the caller goes away meanwhile: a container or a shim that is half made would be known to nobody.
pub(crate) async fn to_its_end<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = std::result::Result<T, TaskError>> + Send + 'static,
) -> std::result::Result<T, TaskError> {
    let ending = Err(TaskError::State { operation, state: "ending with its shim" });
    tokio::spawn(work).await.unwrap_or(ending)
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        if !request.parent_checkpoint.is_empty() {
            return Err(TaskError::Unimplemented { what: "restoring from a checkpoint with a parent" }.into());
        }
        let checkpoint = (!request.checkpoint.is_empty()).then(|| PathBuf::from(request.checkpoint));
        let addresses = Addresses {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let bundle = PathBuf::from(request.bundle);
        let options = Options::from_wire(request.options.as_ref())?;
        let request = CreateRequest {
            id: request.id,
            bundle,
            rootfs: request.rootfs,
            addresses,
            options,
            checkpoint,
            document: None,
        };
        let shim = Arc::clone(&self.0);
        let pid = to_its_end("create", async move { shim.create(request).await }).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let shim = Arc::clone(&self.0);
        let pid = to_its_end("start", async move { shim.start(&request.id, &request.exec_id).await }).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let addresses = Addresses {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let process = request.spec.into_option().unwrap_or_default().value;
        let shim = Arc::clone(&self.0);
        let request = ExecRequest { id: request.id, exec_id: request.exec_id, addresses, process };
        to_its_end("add a process", async move { shim.add_exec(request).await }).await?;
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        let is_paused = self.0.is_paused(&request.id)?;
        let mut response = StateResponse {
            bundle: self.0.bundle(&request.id)?.display().to_string(),
            pid: process.pid(),
            stdin: process.addresses.stdin.clone(),
            stdout: process.addresses.stdout.clone(),
            stderr: process.addresses.stderr.clone(),
            terminal: process.addresses.terminal,
            id: request.id,
            exec_id: request.exec_id,
            ..Default::default()
        };
        let status = match process.status() {
            Status::Added | Status::Created => WireStatus::CREATED,
            Status::Running if is_paused => WireStatus::PAUSED,
            Status::Running => WireStatus::RUNNING,
            Status::Exited(exit) => {
                response.exit_status = exit.code;
                response.exited_at = instant::into_wire(exit.at);
                WireStatus::STOPPED
            }
        };
        response.status = status.into();
        Ok(response)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let exit = self.0.process(&request.id, &request.exec_id)?.exited().await;
        Ok(WaitResponse { exit_status: exit.code, exited_at: instant::into_wire(exit.at), ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        self.0.kill(&request.id, &request.exec_id, request.signal, request.all).await?;
        Ok(Empty::default())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let shim = Arc::clone(&self.0);
        let deleted = to_its_end("delete", async move { shim.delete(&request.id, &request.exec_id).await }).await?;
        Ok(DeleteResponse {
            pid: deleted.pid,
            exit_status: deleted.exit.code,
            exited_at: instant::into_wire(deleted.exit.at),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let pids = self.0.pids(&request.id).await?;
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        self.0.pause(&request.id).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        self.0.resume(&request.id).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Result<Empty> {
        let wire = request.options.into_option();
        self.0.checkpoint(&request.id, Path::new(&request.path), wire).await?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let cells =
            |what, count: u32| u16::try_from(count).map_err(|_| TaskError::Argument { what, value: count.to_string() });
        let (rows, columns) = (cells("height", request.height)?, cells("width", request.width)?);
        self.0.resize(&request.id, &request.exec_id, rows, columns).await?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.io.close_stdin();
        }
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        self.0.update(&request.id, &request.resources.value).await?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let stats = self.0.stats(&request.id).await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        // A shim that has no task yet answers too: the caller asks who serves here.
        let task_pid = self.0.process(&request.id, "").map(|init| init.pid()).unwrap_or_default();
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Result<Empty> {
        self.0.shut_down(request.now)?;
        Ok(Empty::default())
    }
}
