//! `Tasks`: running containers, whichever face made them. Each call goes to the task's shim; its rules are the shim's.
//!
//! ```text
//! container made by           lives in            created, deleted by
//! this API                    core::fleet         this API
//! Docker's API (`default`)    engine              the engine: here it can be looked at, signalled, paused, and joined by exec
//! ```

mod checkpoint;
mod process;

use berth_containerd_api::containerd::services::tasks::v1::tasks_server::Tasks;
use berth_containerd_api::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest, CreateTaskResponse,
    DeleteProcessRequest, DeleteResponse, DeleteTaskRequest, ExecProcessRequest, GetRequest, GetResponse, KillRequest,
    ListPidsRequest, ListPidsResponse, ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse,
    PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use berth_containerd_api::containerd::types::Metric;
use berth_containerd_api::containerd::v1::types::ProcessInfo;
use berth_core::Tenant;
use berth_core::filter::Fields;
use berth_core::fleet::{NewTask, restore_path};
use berth_shim_client::{CreateTask, IoUris, RootfsMount, ShimClient, ShimError};
use berth_types::{ExecId, Signal, Timestamp};
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::{Answer, filters};
use crate::Face;
use crate::convert::instant;
use crate::status::{IntoStatus as _, engine_status};
use crate::tenant;
use process::{TaskRef, exec_id};

struct IdField<'a>(&'a str);

impl Fields for IdField<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        (path == ["id"]).then(|| self.0.to_owned())
    }
}

fn pair(any: Option<Any>) -> Option<(String, Vec<u8>)> {
    any.map(|any| (any.type_url, any.value))
}

fn new_task(request: CreateTaskRequest) -> NewTask {
    let rootfs = request.rootfs.into_iter().map(|mount| RootfsMount {
        fstype: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    let io =
        IoUris { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
    let task = CreateTask { rootfs: rootfs.collect(), io, checkpoint: String::new(), options: pair(request.options) };
    let runtime_path = (!request.runtime_path.is_empty()).then(|| request.runtime_path.into());
    NewTask { task, runtime_path }
}

impl Face {
    fn task(&self, tenant: &Tenant, id: &str) -> Result<TaskRef, Status> {
        if tenant.is_docker()
            && let Some(seam) = self.engine.task_seam(id)
        {
            return Ok(TaskRef::Docker(seam));
        }
        self.engine.fleet().member(tenant, id).map(TaskRef::Fleet).map_err(|error| error.into_status())
    }

    fn shim(&self, tenant: &Tenant, id: &str) -> Result<ShimClient, Status> {
        Ok(self.task(tenant, id)?.shim().clone())
    }

    fn tasks(&self, tenant: &Tenant) -> Vec<TaskRef> {
        let mut found: Vec<TaskRef> = self.engine.fleet().members(tenant).into_iter().map(TaskRef::Fleet).collect();
        if tenant.is_docker() {
            found.extend(self.engine.task_seams().into_iter().map(TaskRef::Docker));
        }
        found
    }
}

#[tonic::async_trait]
impl Tasks for Face {
    async fn create(&self, request: Request<CreateTaskRequest>) -> Answer<CreateTaskResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let container_id = request.container_id.clone();
        if self.docker_container(&tenant, &container_id).is_some() {
            let why = format!("container {container_id:?} was made through Docker's API: start it there (berth start)");
            return Err(Status::failed_precondition(why));
        }
        let object = self.container(&tenant, &container_id)?;
        let mut request = request;
        let checkpoint = request.checkpoint.take();
        let mut new = new_task(request);
        let named = restore_path(new.task.options.as_ref());
        let is_restored = named.is_none() && checkpoint.is_some();
        match (named, checkpoint) {
            (Some(path), _) if !path.is_absolute() => {
                return Err(Status::invalid_argument(format!("criu_image_path {path:?} is no absolute path")));
            }
            (Some(path), _) => new.task.checkpoint = path.display().to_string(),
            (None, Some(checkpoint)) => {
                new.task.checkpoint = self.take_checkpoint(&tenant, &container_id, checkpoint).await?;
            }
            (None, None) => {}
        }
        let fleet = std::sync::Arc::clone(self.engine.fleet());
        let owner = tenant.clone();
        // A client that hangs up must not leave half a task behind: the job runs to its end.
        let job = tokio::spawn(async move { fleet.create(&tenant, &object, new).await });
        let made = job.await.map_err(|_| Status::internal("the create ended early"))?;
        if made.is_err() && is_restored {
            self.engine.fleet().drop_restored_from(&owner, &container_id);
        }
        let member = made.map_err(|error| error.into_status())?;
        Ok(Response::new(CreateTaskResponse { container_id, pid: member.pid }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answer<StartResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let task = self.task(&tenant, &request.container_id)?;
        let pid = task.shim().start_process(exec.as_ref()).await.map_err(|error| error.into_status())?;
        if let (TaskRef::Docker(seam), Some(exec)) = (&task, exec) {
            self.follow_docker_exec(seam, exec, pid);
        }
        Ok(Response::new(StartResponse { pid }))
    }

    async fn delete(&self, request: Request<DeleteTaskRequest>) -> Answer<DeleteResponse> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().container_id;
        if let TaskRef::Docker(_) = self.task(&tenant, &id)? {
            let why = format!("task {id:?} must be stopped before deletion: running; its engine deletes it then");
            return Err(Status::failed_precondition(why));
        }
        let (fleet, name) = (std::sync::Arc::clone(self.engine.fleet()), id.clone());
        let job = tokio::spawn(async move { fleet.delete(&tenant, &name).await });
        let deleted = job.await.map_err(|_| Status::internal("the delete ended early"))?;
        let (pid, status) = deleted.map_err(|error| error.into_status())?;
        Ok(Response::new(DeleteResponse {
            id,
            pid,
            exit_status: status.code,
            exited_at: Some(instant(status.exited_at)),
        }))
    }

    async fn delete_process(&self, request: Request<DeleteProcessRequest>) -> Answer<DeleteResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let exec = exec.ok_or_else(|| Status::invalid_argument("a process to delete must be named"))?;
        let shim = self.shim(&tenant, &request.container_id)?;
        let status = shim.delete(Some(&exec)).await.map_err(|error| error.into_status())?;
        Ok(Response::new(DeleteResponse {
            id: request.exec_id,
            pid: 0,
            exit_status: status.code,
            exited_at: Some(instant(status.exited_at)),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let process = self.task(&tenant, &request.container_id)?.process(exec.as_ref()).await;
        let process = process.map_err(|error| error.into_status())?;
        Ok(Response::new(GetResponse { process: Some(process) }))
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&[request.into_inner().filter])?;
        let mut tasks = Vec::new();
        for task in self.tasks(&tenant) {
            if filters.matches(&IdField(task.id())) {
                match task.process(None).await {
                    Ok(process) => tasks.push(process),
                    // It ended while we asked.
                    Err(error) => tracing::debug!(container_id = task.id(), "{}", berth_types::report(&error)),
                }
            }
        }
        tasks.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let task = self.task(&tenant, &request.container_id)?;
        let signal = i32::try_from(request.signal).ok().and_then(|number| Signal::new(number).ok());
        match (&task, exec, signal) {
            // The engine must know that somebody wanted it down: its restart policy depends on it.
            (TaskRef::Docker(seam), None, Some(signal)) => {
                self.engine.kill(&seam.id, Some(signal)).await.map_err(engine_status)?;
            }
            (_, exec, _) => {
                let killed = task.shim().kill_number(exec.as_ref(), request.signal, request.all).await;
                killed.map_err(|error| match error {
                    // Deleted meanwhile, by somebody else.
                    ShimError::Gone { .. } => Status::not_found("process already finished: its shim has ended"),
                    other => other.into_status(),
                })?;
            }
        }
        Ok(Response::new(()))
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?.ok_or_else(|| Status::invalid_argument("a process needs an id"))?;
        let io =
            IoUris { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
        let spec = request.spec.ok_or_else(|| Status::invalid_argument("a process must be described"))?;
        let task = self.task(&tenant, &request.container_id)?;
        task.shim().exec(&exec, &spec.value, &io).await.map_err(|error| error.into_status())?;
        if let TaskRef::Docker(seam) = &task {
            self.tell_docker_exec_added(seam, &exec);
        }
        Ok(Response::new(()))
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let cells = |count: u32| {
            u16::try_from(count).map_err(|_| Status::invalid_argument(format!("a terminal has no {count} cells")))
        };
        let (rows, columns) = (cells(request.height)?, cells(request.width)?);
        let shim = self.shim(&tenant, &request.container_id)?;
        shim.resize_pty(exec.as_ref(), rows, columns).await.map_err(|error| error.into_status())?;
        Ok(Response::new(()))
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        if request.stdin {
            let shim = self.shim(&tenant, &request.container_id)?;
            shim.close_io(exec.as_ref()).await.map_err(|error| error.into_status())?;
        }
        Ok(Response::new(()))
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        match self.task(&tenant, &request.into_inner().container_id)? {
            TaskRef::Docker(seam) => self.engine.pause(&seam.id).await.map_err(engine_status)?,
            TaskRef::Fleet(member) => member.shim.pause().await.map_err(|error| error.into_status())?,
        }
        Ok(Response::new(()))
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        match self.task(&tenant, &request.into_inner().container_id)? {
            TaskRef::Docker(seam) => self.engine.unpause(&seam.id).await.map_err(engine_status)?,
            TaskRef::Fleet(member) => member.shim.resume().await.map_err(|error| error.into_status())?,
        }
        Ok(Response::new(()))
    }

    async fn list_pids(&self, request: Request<ListPidsRequest>) -> Answer<ListPidsResponse> {
        let tenant = tenant::of(&request)?;
        let shim = self.shim(&tenant, &request.into_inner().container_id)?;
        let found = shim.processes().await.map_err(|error| error.into_status())?;
        let info = |(type_url, value)| Any { type_url, value };
        let processes = found.into_iter().map(|found| ProcessInfo { pid: found.pid, info: found.info.map(info) });
        Ok(Response::new(ListPidsResponse { processes: processes.collect() }))
    }

    async fn checkpoint(&self, request: Request<CheckpointTaskRequest>) -> Answer<CheckpointTaskResponse> {
        let tenant = tenant::of(&request)?;
        let lease = tenant::lease_of(&request);
        let answer = self.checkpoint_task(&tenant, lease, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let resources = request.resources.ok_or_else(|| Status::invalid_argument("resources must be given"))?;
        let shim = self.shim(&tenant, &request.container_id)?;
        let updated = shim.update_annotated(&resources.value, request.annotations).await;
        updated.map_err(|error| error.into_status())?;
        Ok(Response::new(()))
    }

    async fn metrics(&self, request: Request<MetricsRequest>) -> Answer<MetricsResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let mut metrics = Vec::new();
        for task in self.tasks(&tenant) {
            if !filters.matches(&IdField(task.id())) {
                continue;
            }
            match task.shim().stats().await {
                Ok((type_url, value)) => metrics.push(Metric {
                    timestamp: Some(instant(Timestamp::now())),
                    id: task.id().to_owned(),
                    data: Some(Any { type_url, value }),
                }),
                // It ended while we asked, or its shim cannot tell.
                Err(error) => tracing::debug!(container_id = task.id(), "{}", berth_types::report(&error)),
            }
        }
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<WaitResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let exec: Option<ExecId> = exec_id(&request.exec_id)?;
        let status = match self.task(&tenant, &request.container_id)? {
            TaskRef::Docker(seam) => seam.shim.wait(exec.as_ref()).await.map_err(|error| error.into_status())?,
            TaskRef::Fleet(member) => {
                let waited = self.engine.fleet().wait(&member, exec.as_ref()).await;
                waited.map_err(|error| error.into_status())?
            }
        };
        Ok(Response::new(WaitResponse { exit_status: status.code, exited_at: Some(instant(status.exited_at)) }))
    }
}
