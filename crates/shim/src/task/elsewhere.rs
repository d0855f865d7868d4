//! Containers that are not made in this process: another runtime's, driven by its commands, or another shim's. Both take their time (hooks may
//! call back), so they are asked without the tasks' lock, and everybody else is served meanwhile.

use std::sync::Arc;

use berth_cgroup::Layout;
use berth_oci::runtime::LinuxResources;
use berth_proto::protobuf::well_known_types::any::Any;
use berth_types::Signal;

use super::Shim;
use super::create::size_of;
use super::machine::command;
use super::relay::Relay;
use crate::error::TaskError;
use crate::oci::OciContainer;
use crate::process::{Process, Status};
use crate::stats;

/// Whom to ask.
#[derive(Debug)]
pub(super) enum Elsewhere {
    Command(Arc<OciContainer>),
    Relay(Arc<Relay>),
}

impl Elsewhere {
    pub(super) async fn pause(&self) -> Result<(), TaskError> {
        match self {
            Self::Command(container) => container.pause().await.map_err(|source| command("pause", source)),
            Self::Relay(relay) => relay.pause().await,
        }
    }

    pub(super) async fn resume(&self) -> Result<(), TaskError> {
        match self {
            Self::Command(container) => container.resume().await.map_err(|source| command("resume", source)),
            Self::Relay(relay) => relay.resume().await,
        }
    }

    pub(super) async fn pids(&self) -> Result<Vec<u32>, TaskError> {
        match self {
            Self::Command(container) => {
                container.pids().await.map_err(|source| command("list the processes of", source))
            }
            Self::Relay(relay) => relay.pids().await,
        }
    }

    pub(super) async fn update(&self, resources: &LinuxResources) -> Result<(), TaskError> {
        match self {
            Self::Command(container) => {
                container.update(resources).await.map_err(|source| command("set the limits of", source))
            }
            Self::Relay(relay) => {
                let json = serde_json::to_vec(resources)
                    .map_err(|source| TaskError::Document { what: "the resources", source })?;
                relay.update(&json).await
            }
        }
    }

    pub(super) async fn stats(&self) -> Result<Any, TaskError> {
        match self {
            Self::Command(container) => {
                let measured = container.stats().await.map_err(|source| command("measure", source))?;
                let layout = Layout::detect().map_err(|source| TaskError::Cgroup { source })?;
                Ok(stats::message(&layout, &measured))
            }
            Self::Relay(relay) => relay.stats().await,
        }
    }
}

impl Shim {
    pub(super) async fn kill_by_command(
        &self,
        container: &OciContainer,
        id: &str,
        exec_id: &str,
        signal: Signal,
        all: bool,
    ) -> Result<(), TaskError> {
        let (process, is_for_all, is_paused) =
            self.with(id, |task| Ok((task.process(id, exec_id)?, task.is_for_all(all, signal), task.is_paused)))?;
        let failed = |source| command("signal", source);
        if is_for_all {
            return container.kill(signal.number(), true).await.map_err(failed);
        }
        if !exec_id.is_empty() || !matches!(process.status(), Status::Created | Status::Running) {
            return process.signal(signal.number());
        }
        container.kill(signal.number(), false).await.map_err(failed)?;
        // A frozen one dies when it is thawed.
        if signal == Signal::KILL && is_paused { container.resume().await.map_err(failed) } else { Ok(()) }
    }

    /// Init, or an added process.
    pub(super) async fn start_by_command(
        self: &Arc<Self>,
        container: &OciContainer,
        process: &Arc<Process>,
        begun: u64,
    ) -> Result<u32, TaskError> {
        let _hold = self.holds.hold();
        if !process.exec_id.is_empty() {
            return self.exec_by_command(container, process).await;
        }
        match process.status() {
            Status::Created => {}
            other => return Err(TaskError::State { operation: "start", state: other.name() }),
        }
        process.io.follow_fifo()?;
        let started = container.start().await.map_err(|source| command("start", source));
        self.with(&process.task_id, |task| {
            task.trace.finish("task.start", &process.task_id, begun, &task.bundle);
            Ok(())
        })?;
        started?;
        process.set_running();
        Ok(process.pid())
    }

    async fn exec_by_command(
        self: &Arc<Self>,
        container: &OciContainer,
        process: &Arc<Process>,
    ) -> Result<u32, TaskError> {
        let plan = self.with(&process.task_id, |task| self.take_plan(task, process))?;
        let made = async {
            let (stdio, streams) = process.io.streams(size_of(plan.console_size()))?;
            let live = container.exec(&plan, stdio).await.map_err(|source| command("start a process in", source))?;
            super::start::bring_alive(process, live, streams)
        };
        self.follow_exec(process, made.await)
    }
}
