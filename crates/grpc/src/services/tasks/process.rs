//! One task, whichever face made its container, and its processes as messages.

use std::sync::Arc;

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::v1::types::{Process, Status as WireStatus};
use berth_core::Tenant;
use berth_core::fleet::Member;
use berth_engine::containerd::TaskSeam;
use berth_shim_client::{ShimClient, ShimError, TaskState};
use berth_types::ExecId;
use tonic::Status;

use crate::Face;
use crate::convert::{NEVER, instant};
use crate::event::Docker;
use crate::status::IntoStatus as _;

pub(super) enum TaskRef {
    Fleet(Arc<Member>),
    Docker(TaskSeam),
}

/// An empty id is the task's init.
pub(super) fn exec_id(text: &str) -> Result<Option<ExecId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<ExecId>().map(Some).map_err(|error| error.into_status())
}

impl TaskRef {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Fleet(member) => &member.id,
            Self::Docker(seam) => &seam.id,
        }
    }

    pub(super) fn shim(&self) -> &ShimClient {
        match self {
            Self::Fleet(member) => &member.shim,
            Self::Docker(seam) => &seam.shim,
        }
    }

    pub(super) async fn process(&self, exec: Option<&ExecId>) -> Result<Process, ShimError> {
        let state = self.shim().state(exec).await?;
        let status = match state.state {
            TaskState::Created => WireStatus::Created,
            TaskState::Running => WireStatus::Running,
            TaskState::Paused => WireStatus::Paused,
            TaskState::Stopped => WireStatus::Stopped,
            TaskState::Unknown => WireStatus::Unknown,
        };
        Ok(Process {
            container_id: self.id().to_owned(),
            id: exec.map_or(self.id(), ExecId::as_str).to_owned(),
            pid: state.pid,
            status: status.into(),
            stdin: state.io.stdin,
            stdout: state.io.stdout,
            stderr: state.io.stderr,
            terminal: state.io.terminal,
            exit_status: state.exit.map_or(0, |exit| exit.code),
            exited_at: Some(state.exit.map_or(NEVER, |exit| instant(exit.exited_at))),
        })
    }
}

/// The engine's shims tell no events of processes: those that this face adds to a Docker container are told here.
impl Face {
    pub(super) fn tell_docker_exec_added(&self, seam: &TaskSeam, exec: &ExecId) {
        let event = wire_events::TaskExecAdded { container_id: seam.id.clone(), exec_id: exec.to_string() };
        let docker = docker_exec("exec_create", seam, exec, 0);
        self.publish(&Tenant::docker(), "/tasks/exec-added", &event, Some(docker));
    }

    pub(super) fn follow_docker_exec(&self, seam: &TaskSeam, exec: ExecId, pid: u32) {
        let tenant = Tenant::docker();
        let event = wire_events::TaskExecStarted { container_id: seam.id.clone(), exec_id: exec.to_string(), pid };
        self.publish(&tenant, "/tasks/exec-started", &event, Some(docker_exec("exec_start", seam, &exec, pid)));
        let (face, seam) = (self.clone(), seam.clone());
        tokio::spawn(async move {
            // The container ended and took the process along: the engine tells of that.
            let Ok(status) = seam.shim.wait(Some(&exec)).await else { return };
            let event = wire_events::TaskExit {
                container_id: seam.id.clone(),
                id: exec.to_string(),
                pid,
                exit_status: status.code,
                exited_at: Some(instant(status.exited_at)),
            };
            let mut docker = docker_exec("exec_die", &seam, &exec, pid);
            docker.attributes.insert("exitCode".to_owned(), status.code.to_string());
            face.publish(&tenant, "/tasks/exit", &event, Some(docker));
        });
    }
}

fn docker_exec(action: &'static str, seam: &TaskSeam, exec: &ExecId, pid: u32) -> Docker {
    let attributes = [("execID".to_owned(), exec.to_string())].into();
    Docker { kind: "container", action, actor_id: seam.id.clone(), attributes, pid }
}
