//! What a container runs on: our own runtime in this process, another runtime's command line, or another shim behind ours.
//!
//! The first answers at once and is driven under the task's lock; the others are asked before it ([`super::elsewhere`]).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::{self as oci, LinuxResources};
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::{Container, Process, Stdio};
use berth_types::{Signal, Span};

use super::elsewhere::Elsewhere;
use super::relay::Relay;
use super::{exec_or, runtime};
use crate::error::TaskError;
use crate::log;
use crate::oci::{CommandError, OciContainer};
use crate::stats;

#[derive(Debug)]
pub(super) enum Machine {
    Own(Box<Container>),
    Command(Arc<OciContainer>),
    Relay(Arc<Relay>),
}

impl Machine {
    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        match self {
            Self::Relay(relay) => Some(Arc::clone(relay)),
            Self::Own(_) | Self::Command(_) => None,
        }
    }

    pub(super) fn command(&self) -> Option<Arc<OciContainer>> {
        match self {
            Self::Command(container) => Some(Arc::clone(container)),
            Self::Own(_) | Self::Relay(_) => None,
        }
    }

    pub(super) fn elsewhere(&self) -> Option<Elsewhere> {
        match self {
            Self::Own(_) => None,
            Self::Command(container) => Some(Elsewhere::Command(Arc::clone(container))),
            Self::Relay(relay) => Some(Elsewhere::Relay(Arc::clone(relay))),
        }
    }

    pub(super) fn init_pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Own(container) => Some(&container.init.pidfd),
            Self::Command(container) => Some(&container.pidfd),
            Self::Relay(_) => None,
        }
    }

    /// `None`: there is none, or another shim's.
    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Self::Own(container) => Some(container.cgroup()),
            Self::Command(container) => container.cgroup(),
            Self::Relay(_) => None,
        }
    }

    fn own(&self, operation: &'static str) -> Result<&Container, TaskError> {
        match self {
            Self::Own(container) => Ok(container),
            Self::Command(_) | Self::Relay(_) => Err(elsewhere(operation)),
        }
    }

    pub(super) fn start(&mut self, spans: &mut Vec<Span>) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.start(spans).map_err(|source| exec_or("start", source)),
            Self::Command(_) | Self::Relay(_) => Err(elsewhere("start")),
        }
    }

    pub(super) fn exec(
        &mut self,
        plan: &oci::Process,
        stdio: Stdio,
        spans: &mut Vec<Span>,
    ) -> Result<Process, TaskError> {
        const OPERATION: &str = "start a process in";
        match self {
            Self::Own(container) => container.exec(plan, stdio, spans).map_err(|source| exec_or(OPERATION, source)),
            Self::Command(_) | Self::Relay(_) => Err(elsewhere(OPERATION)),
        }
    }

    pub(super) fn kill_all(&self, signal: Signal) -> Result<(), TaskError> {
        self.own("signal")?.kill_all(signal).map_err(|source| runtime("signal", source))
    }

    pub(super) fn pause(&self) -> Result<(), TaskError> {
        self.own("pause")?.pause().map_err(|source| runtime("pause", source))
    }

    pub(super) fn resume(&self) -> Result<(), TaskError> {
        self.own("resume")?.resume().map_err(|source| runtime("resume", source))
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, TaskError> {
        const OPERATION: &str = "list the processes of";
        self.own(OPERATION)?.pids().map_err(|source| runtime(OPERATION, source))
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> Result<(), TaskError> {
        const OPERATION: &str = "set the limits of";
        self.own(OPERATION)?.update(resources).map_err(|source| runtime(OPERATION, source))
    }

    pub(super) fn stats(&self) -> Result<Any, TaskError> {
        let failed = |source| TaskError::Cgroup { source };
        let measured = self.own("measure")?.cgroup().stats().map_err(failed)?;
        Ok(stats::message(&Layout::detect().map_err(failed)?, &measured))
    }

    /// Removes the container: its processes, its cgroup, what its runtime or shim keeps of it.
    pub(super) async fn delete(self) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => {
                let warnings = container.delete_reporting().map_err(|source| runtime("delete", source))?;
                warnings.iter().for_each(|warning| log::warn(warning));
                Ok(())
            }
            Self::Command(container) => container.delete().await.map_err(|source| command("delete", source)),
            Self::Relay(relay) => {
                relay.abandon().await;
                Ok(())
            }
        }
    }
}

pub(super) fn command(operation: &'static str, source: CommandError) -> TaskError {
    match source.exec_failure() {
        Some(class) => TaskError::OtherExec { class, source: source.into() },
        None => TaskError::Command { operation, source },
    }
}

/// The other shim is asked instead.
const fn elsewhere(operation: &'static str) -> TaskError {
    TaskError::State { operation, state: "another shim's" }
}
