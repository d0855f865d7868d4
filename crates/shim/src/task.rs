//! The task of this shim: its container, the processes in it, and the rules of what may be done when.

mod create;
mod end;
mod exec;
mod options;
mod rootfs;
mod start;
mod trace;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::runtime::LinuxResources;
use berth_proto::attach::{Reply, Request};
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::{Container, RuntimeError};
use berth_types::{Classify, ErrorClass, Signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) use create::CreateRequest;
pub(crate) use exec::ExecRequest;
pub(crate) use options::Options;

use crate::error::TaskError;
use crate::events::Publisher;
use crate::io::OpenOutlets;
use crate::process::{Process, Status};
use crate::stats;
use trace::Trace;

/// Everything this process is about.
#[derive(Debug)]
pub(crate) struct Shim {
    /// The only task it takes.
    id: String,
    /// The score the container's processes get when their document names none; `None`: inherited.
    oom_score: Option<i32>,
    task: Mutex<Option<Task>>,
    pub(crate) events: Arc<Publisher>,
    pub(crate) outlets: Arc<OpenOutlets>,
    shutdown: Notify,
}

#[derive(Debug)]
struct Task {
    bundle: PathBuf,
    container: Container,
    init: Arc<Process>,
    execs: HashMap<String, Arc<Process>>,
    is_paused: bool,
    /// The container's processes are seen by, and may outlive, its init.
    shares_pid_ns: bool,
    /// What its document says, for processes added later.
    oom_score: Option<i32>,
    oom_watch: Option<JoinHandle<()>>,
    /// How many of the kernel's kills for lack of memory have been told.
    oom_kills_told: u64,
    trace: Trace,
}

impl Shim {
    pub(crate) fn new(id: String, oom_score: Option<i32>, events: Arc<Publisher>) -> Arc<Self> {
        Arc::new(Self {
            id,
            oom_score,
            task: Mutex::default(),
            events,
            outlets: Arc::default(),
            shutdown: Notify::new(),
        })
    }

    /// Init with an empty `exec_id`.
    pub(crate) fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        self.with(id, |task| task.process(id, exec_id))
    }

    /// What `State` reports of init when it is asked for.
    pub(crate) fn is_paused(&self, id: &str) -> Result<bool, TaskError> {
        self.with(id, |task| Ok(task.is_paused))
    }

    pub(crate) fn bundle(&self, id: &str) -> Result<PathBuf, TaskError> {
        self.with(id, |task| Ok(task.bundle.clone()))
    }

    pub(crate) fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<(), TaskError> {
        let invalid = || TaskError::Argument { what: "signal", value: signal.to_string() };
        let signal = i32::try_from(signal).ok().and_then(|n| Signal::new(n).ok()).ok_or_else(invalid)?;
        self.with(id, |task| {
            // SIGKILL to the init of a pid namespace ends all of it, without waiting here; a frozen one (v1) must be thawed for it.
            let is_end = signal == Signal::KILL && exec_id.is_empty();
            if (is_end && task.is_paused) || (all && (task.shares_pid_ns || signal != Signal::KILL)) {
                return task.container.kill_all(signal).map_err(|source| runtime("signal", source));
            }
            task.process(id, exec_id)?.signal(id, signal.number())
        })
    }

    pub(crate) fn pause(&self, id: &str) -> Result<(), TaskError> {
        self.with(id, |task| {
            task.expect_running("pause", false)?;
            task.container.pause().map_err(|source| runtime("pause", source))?;
            task.is_paused = true;
            Ok(())
        })?;
        self.events.paused(id.to_owned());
        Ok(())
    }

    pub(crate) fn resume(&self, id: &str) -> Result<(), TaskError> {
        self.with(id, |task| {
            task.expect_running("resume", true)?;
            task.container.resume().map_err(|source| runtime("resume", source))?;
            task.is_paused = false;
            Ok(())
        })?;
        self.events.resumed(id.to_owned());
        Ok(())
    }

    /// Host pids of everything in the container.
    pub(crate) fn pids(&self, id: &str) -> Result<Vec<u32>, TaskError> {
        self.with(id, |task| task.container.pids().map_err(|source| runtime("list the processes of", source)))
    }

    pub(crate) fn update(&self, id: &str, resources: &[u8]) -> Result<(), TaskError> {
        let resources: LinuxResources = serde_json::from_slice(resources)
            .map_err(|source| TaskError::Document { what: "the resources", source })?;
        self.with(id, |task| task.container.update(&resources).map_err(|source| runtime("set the limits of", source)))
    }

    pub(crate) fn stats(&self, id: &str) -> Result<Any, TaskError> {
        self.with(id, |task| {
            let failed = |source| TaskError::Cgroup { source };
            let layout = berth_cgroup::Layout::detect().map_err(failed)?;
            Ok(stats::message(&layout, &task.container.cgroup().stats().map_err(failed)?))
        })
    }

    /// Ends the shim once it has delivered everything. Refused while there is a task, unless `now`.
    pub(crate) fn shut_down(&self, now: bool) -> Result<(), TaskError> {
        if !now && let Some(task) = &*self.lock() {
            return Err(TaskError::State { operation: "shut down", state: task.init.status().name() });
        }
        self.shutdown.notify_one();
        Ok(())
    }

    pub(crate) async fn shutdown_asked(&self) {
        self.shutdown.notified().await;
    }

    /// A client's stream for one of the processes.
    pub(crate) fn attach(&self, request: Request, stream: std::os::fd::OwnedFd) -> Reply {
        let attached = self
            .process(&self.id, &request.exec_id)
            .and_then(|process| process.io.attach(request.options, stream).map_err(TaskError::from));
        match attached {
            Ok(()) => Reply::Ok(true),
            Err(error) => Reply::Error { class: error.class(), message: berth_types::report(&error) },
        }
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Task) -> Result<T, TaskError>) -> Result<T, TaskError> {
        match &mut *self.lock() {
            Some(task) if id == self.id => act(task),
            _ => Err(TaskError::NoTask { id: id.to_owned() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let unknown = || TaskError::NoProcess { id: id.to_owned(), exec_id: exec_id.to_owned() };
        self.execs.get(exec_id).map(Arc::clone).ok_or_else(unknown)
    }

    fn expect_running(&self, operation: &'static str, is_paused: bool) -> Result<(), TaskError> {
        match self.init.status() {
            Status::Running if self.is_paused == is_paused => Ok(()),
            Status::Running if self.is_paused => Err(TaskError::State { operation, state: "paused" }),
            other => Err(TaskError::State { operation, state: other.name() }),
        }
    }
}

fn runtime(operation: &'static str, source: RuntimeError) -> TaskError {
    TaskError::Runtime { operation, source }
}

/// A program that cannot be executed is the user's business, anything else a failure of the operation.
fn exec_or(operation: &'static str, source: RuntimeError) -> TaskError {
    match source.exec_failure() {
        Some(berth_runtime::ExecFailure::NotFound) => TaskError::Exec { class: ErrorClass::NotFound, cause: source },
        Some(berth_runtime::ExecFailure::NotExecutable) => {
            TaskError::Exec { class: ErrorClass::PermissionDenied, cause: source }
        }
        None => runtime(operation, source),
    }
}
