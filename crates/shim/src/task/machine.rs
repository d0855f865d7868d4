//! What a container runs on: our own runtime in this process, another runtime's command line, or another shim behind ours.
//!
//! The first two answer at once and are driven under the task's lock; calls for the third are passed on before it ([`super::relay`]).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::{self as oci, LinuxResources};
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::{Container, Process, Stdio};
use berth_types::{Signal, Span};

use super::relay::Relay;
use super::{exec_or, runtime};
use crate::error::TaskError;
use crate::log;
use crate::oci::{CommandError, OciContainer};
use crate::stats;

#[derive(Debug)]
pub(super) enum Machine {
    Own(Box<Container>),
    Command(Box<OciContainer>),
    Relay(Arc<Relay>),
}

impl Machine {
    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        match self {
            Self::Relay(relay) => Some(Arc::clone(relay)),
            Self::Own(_) | Self::Command(_) => None,
        }
    }

    pub(super) fn init_pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Own(container) => Some(&container.init.pidfd),
            Self::Command(container) => Some(&container.init.pidfd),
            Self::Relay(_) => None,
        }
    }

    pub(super) fn take_console(&mut self) -> Option<OwnedFd> {
        match self {
            Self::Own(container) => container.init.console.take(),
            Self::Command(container) => container.init.console.take(),
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

    pub(super) fn start(&mut self, spans: &mut Vec<Span>) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.start(spans).map_err(|source| exec_or("start", source)),
            Self::Command(container) => container.start().map_err(|source| command("start", source)),
            Self::Relay(_) => Err(elsewhere("start")),
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
            Self::Command(container) => container.exec(plan, stdio).map_err(|source| command(OPERATION, source)),
            Self::Relay(_) => Err(elsewhere(OPERATION)),
        }
    }

    pub(super) fn kill_init(&self, signal: Signal) -> Option<Result<(), TaskError>> {
        match self {
            // By its descriptor, which the caller has.
            Self::Own(_) => None,
            Self::Command(container) => {
                Some(container.kill(signal.number(), false).map_err(|source| command("signal", source)))
            }
            Self::Relay(_) => Some(Err(elsewhere("signal"))),
        }
    }

    pub(super) fn kill_all(&self, signal: Signal) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.kill_all(signal).map_err(|source| runtime("signal", source)),
            Self::Command(container) => {
                container.kill(signal.number(), true).map_err(|source| command("signal", source))
            }
            Self::Relay(_) => Err(elsewhere("signal")),
        }
    }

    pub(super) fn pause(&self) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.pause().map_err(|source| runtime("pause", source)),
            Self::Command(container) => container.pause().map_err(|source| command("pause", source)),
            Self::Relay(_) => Err(elsewhere("pause")),
        }
    }

    pub(super) fn resume(&self) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => container.resume().map_err(|source| runtime("resume", source)),
            Self::Command(container) => container.resume().map_err(|source| command("resume", source)),
            Self::Relay(_) => Err(elsewhere("resume")),
        }
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, TaskError> {
        const OPERATION: &str = "list the processes of";
        match self {
            Self::Own(container) => container.pids().map_err(|source| runtime(OPERATION, source)),
            Self::Command(container) => container.pids().map_err(|source| command(OPERATION, source)),
            Self::Relay(_) => Err(elsewhere(OPERATION)),
        }
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> Result<(), TaskError> {
        const OPERATION: &str = "set the limits of";
        match self {
            Self::Own(container) => container.update(resources).map_err(|source| runtime(OPERATION, source)),
            Self::Command(container) => container.update(resources).map_err(|source| command(OPERATION, source)),
            Self::Relay(_) => Err(elsewhere(OPERATION)),
        }
    }

    pub(super) fn stats(&self) -> Result<Any, TaskError> {
        let failed = |source| TaskError::Cgroup { source };
        let measured = match self {
            Self::Own(container) => container.cgroup().stats().map_err(failed)?,
            Self::Command(container) => container.stats().map_err(|source| command("measure", source))?,
            Self::Relay(_) => return Err(elsewhere("measure")),
        };
        Ok(stats::message(&Layout::detect().map_err(failed)?, &measured))
    }

    pub(super) fn delete(self) -> Result<(), TaskError> {
        match self {
            Self::Own(container) => {
                let warnings = container.delete_reporting().map_err(|source| runtime("delete", source))?;
                warnings.iter().for_each(|warning| log::warn(warning));
                Ok(())
            }
            Self::Command(container) => container.delete().map_err(|source| command("delete", source)),
            Self::Relay(_) => Err(elsewhere("delete")),
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
