//! What a container runs on: our own runtime in this process, another runtime's command line, or another shim behind ours.
//!
//! The first answers at once and is driven under the task's lock, but for what hooks are part of ([`crate::aside`]); the others are asked before
//! it ([`super::elsewhere`]).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::{self as oci, LinuxResources};
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::{Container, Process, Starting, Stdio};
use berth_types::{Signal, Span};

use super::elsewhere::Elsewhere;
use super::relay::Relay;
use super::restore::Saved;
use super::{exec_or, runtime};
use crate::aside::aside;
use crate::error::TaskError;
use crate::log;
use crate::oci::{CommandError, OciContainer};
use crate::stats;

#[derive(Debug)]
pub(super) enum Machine {
    Own(Box<Container>),
    Command(Arc<OciContainer>),
    Relay(Arc<Relay>),
    /// Our own runtime's, once it is started.
    Saved(Arc<Saved>),
    /// Being deleted, by one who has it.
    Away,
}

impl Machine {
    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        match self {
            Self::Relay(relay) => Some(Arc::clone(relay)),
            Self::Own(_) | Self::Command(_) | Self::Saved(_) | Self::Away => None,
        }
    }

    pub(super) fn command(&self) -> Option<Arc<OciContainer>> {
        match self {
            Self::Command(container) => Some(Arc::clone(container)),
            Self::Own(_) | Self::Relay(_) | Self::Saved(_) | Self::Away => None,
        }
    }

    pub(super) fn elsewhere(&self) -> Option<Elsewhere> {
        match self {
            Self::Own(_) | Self::Saved(_) | Self::Away => None,
            Self::Command(container) => Some(Elsewhere::Command(Arc::clone(container))),
            Self::Relay(relay) => Some(Elsewhere::Relay(Arc::clone(relay))),
        }
    }

    pub(super) fn init_pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Own(container) => Some(&container.init.pidfd),
            Self::Command(container) => Some(&container.pidfd),
            Self::Relay(_) | Self::Saved(_) | Self::Away => None,
        }
    }

    /// `None`: there is none, or another shim's.
    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Self::Own(container) => Some(container.cgroup()),
            Self::Command(container) => container.cgroup(),
            Self::Relay(_) | Self::Saved(_) | Self::Away => None,
        }
    }

    fn own(&self, operation: &'static str) -> Result<&Container, TaskError> {
        match self {
            Self::Own(container) => Ok(container),
            other => Err(other.elsewhere_error(operation)),
        }
    }

    /// Whether programs of somebody else's run at its start or its end, in this process's care.
    pub(super) fn has_hooks(&self) -> bool {
        matches!(self, Self::Own(container) if container.has_hooks())
    }

    /// What is done of a start without waiting, before the rest.
    pub(super) fn begin_start(&mut self) -> Result<Starting, TaskError> {
        match self {
            Self::Own(container) => container.begin_start().map_err(|source| exec_or("start", source)),
            other => Err(other.elsewhere_error("start")),
        }
    }

    pub(super) fn finish_start(&mut self, starting: Starting) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.finish_start(starting).map_err(|source| exec_or("start", source)),
            other => Err(other.elsewhere_error("start")),
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
            other => Err(other.elsewhere_error(OPERATION)),
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
        if matches!(self, Self::Saved(_)) {
            return Ok(Vec::new());
        }
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

    /// Removes the container: its processes, its cgroup, what its runtime or shim keeps of it. What could not be removed comes back, to be tried
    /// again.
    pub(super) async fn delete(self) -> (Self, Result<(), TaskError>) {
        match self {
            Self::Own(mut container) => {
                let has_hooks = container.has_hooks();
                let remove = move || {
                    let removed = container.remove();
                    (container, removed)
                };
                let (container, removed) = if has_hooks { aside(remove).await } else { remove() };
                let removed = removed.map_err(|source| runtime("delete", source));
                let removed = removed.map(|warnings| warnings.iter().for_each(|warning| log::warn(warning)));
                (Self::Own(container), removed)
            }
            Self::Command(container) => {
                let deleted = container.delete().await.map_err(|source| command("delete", source));
                (Self::Command(container), deleted)
            }
            Self::Relay(relay) => {
                relay.abandon().await;
                (Self::Relay(relay), Ok(()))
            }
            Self::Saved(_) | Self::Away => (self, Ok(())),
        }
    }

    const fn elsewhere_error(&self, operation: &'static str) -> TaskError {
        let state = match self {
            Self::Away => "being deleted",
            Self::Saved(_) => "not restored yet",
            Self::Own(_) | Self::Command(_) | Self::Relay(_) => "another shim's",
        };
        TaskError::State { operation, state }
    }
}

pub(super) fn command(operation: &'static str, source: CommandError) -> TaskError {
    match source.exec_failure() {
        Some(class) => TaskError::OtherExec { class, source: source.into() },
        None => TaskError::Command { operation, source },
    }
}
