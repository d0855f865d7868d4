//! Start: init execs the user's program, or an exec gets its process.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_oci::runtime as oci;
use berth_types::{ErrorClass, Span, Timestamp};

use super::create::size_of;
use super::elsewhere::Elsewhere;
use super::relay::Relay;
use super::trace::{self, now_ns};
use super::{Shim, Task};
use crate::aside::aside;
use crate::error::TaskError;
use crate::io::Streams;
use crate::process::{Exit, Process, Status};
use crate::reaper;

impl Shim {
    /// Returns the process's pid on the host.
    pub(crate) async fn start(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<u32, TaskError> {
        let begun = now_ns();
        let (process, elsewhere) = self.with(id, |task| Ok((task.process(id, exec_id)?, task.machine.elsewhere())))?;
        let _starting = process.changing.lock().await;
        let pid = match elsewhere {
            Some(Elsewhere::Relay(relay)) => self.start_relayed(&relay, &process).await?,
            Some(Elsewhere::Command(container)) => self.start_by_command(&container, &process, begun).await?,
            None if exec_id.is_empty() => match self.saved(id)? {
                Some(saved) => self.restore_init(saved, &process, begun).await?,
                None => self.start_init(id, begun).await?,
            },
            None => self.with(id, |task| self.start_exec(task, &process, begun))?,
        };
        if self.is_sandbox(id) {
            return Ok(pid);
        }
        if exec_id.is_empty() {
            self.events.started(id.to_owned(), pid);
        } else {
            self.events.exec_started(id.to_owned(), exec_id.to_owned(), pid);
        }
        Ok(pid)
    }

    /// Without the task's lock while hooks may be waited for.
    async fn start_init(&self, id: &str, begun: u64) -> Result<u32, TaskError> {
        let (starting, has_hooks) = self.with(id, |task| {
            match task.init.status() {
                Status::Created => {}
                other => return Err(TaskError::State { operation: "start", state: other.name() }),
            }
            task.init.io.follow_fifo()?;
            Ok((task.machine.begin_start()?, task.machine.has_hooks()))
        })?;
        let run = move || {
            let mut spans = Vec::new();
            let starting = starting.run(&mut spans);
            (starting, spans)
        };
        let (starting, spans) = if has_hooks { aside(run).await } else { run() };
        self.with(id, |task| {
            task.trace.spans.extend(spans);
            let started = task.machine.finish_start(starting);
            task.trace.finish("task.start", id, begun, &task.bundle);
            started?;
            task.init.set_running();
            Ok(task.init.pid())
        })
    }

    async fn start_relayed(self: &Arc<Self>, relay: &Arc<Relay>, process: &Arc<Process>) -> Result<u32, TaskError> {
        match (process.exec_id.is_empty(), process.status()) {
            (true, Status::Created) | (false, Status::Added) => {}
            (_, other) => return Err(TaskError::State { operation: "start", state: other.name() }),
        }
        let pid = match relay.start(process).await {
            Ok(pid) => pid,
            Err(error) => {
                if !process.exec_id.is_empty() {
                    give_up(process, &error);
                }
                return Err(error);
            }
        };
        if process.exec_id.is_empty() {
            process.set_running();
        } else {
            process.set_live(pid, None, Status::Running);
            self.follow_relayed(relay, process);
        }
        tokio::spawn(Arc::clone(relay).follow_input(Arc::clone(process)));
        Ok(pid)
    }

    /// What an added process shall run; it is given away once.
    pub(super) fn take_plan(&self, task: &Task, process: &Process) -> Result<Box<oci::Process>, TaskError> {
        task.expect_running("start a process", false)?;
        let Some(mut plan) = process.take_plan() else {
            return Err(TaskError::State { operation: "start the process", state: process.status().name() });
        };
        if plan.oom_score_adj().is_none() {
            plan.set_oom_score_adj(task.oom_score.or(self.oom_score));
        }
        Ok(plan)
    }

    fn start_exec(self: &Arc<Self>, task: &mut Task, process: &Arc<Process>, begun: u64) -> Result<u32, TaskError> {
        let plan = self.take_plan(task, process)?;
        let mut spans = Vec::new();
        let made = task.make_exec(process, &plan, &mut spans);
        trace::finish_exec(spans, &process.exec_id, begun, &task.bundle);
        self.follow_exec(process, made)
    }

    /// An added process that was made is waited for in a job of its own; one that was not never ran. Its pid on the host.
    pub(super) fn follow_exec(
        self: &Arc<Self>,
        process: &Arc<Process>,
        made: Result<Arc<OwnedFd>, TaskError>,
    ) -> Result<u32, TaskError> {
        let pidfd = made.inspect_err(|error| give_up(process, error))?;
        let pid = process.pid();
        match reaper::follow(&pidfd) {
            Ok(exited) => {
                tokio::spawn(Arc::clone(self).exec_ends(Arc::clone(process), exited));
                Ok(pid)
            }
            Err(source) => {
                reaper::end(pidfd);
                let error = TaskError::Watch { pid, source };
                give_up(process, &error);
                Err(error)
            }
        }
    }
}

impl Task {
    fn make_exec(
        &mut self,
        process: &Arc<Process>,
        plan: &oci::Process,
        spans: &mut Vec<Span>,
    ) -> Result<Arc<OwnedFd>, TaskError> {
        let (stdio, streams) = process.io.streams(size_of(plan.console_size()))?;
        bring_alive(process, self.machine.exec(plan, stdio, spans)?, streams)
    }
}

/// An added process runs: it is known by its descriptor from now on, and its streams are moved.
pub(super) fn bring_alive(
    process: &Process,
    live: berth_runtime::Process,
    streams: Streams,
) -> Result<Arc<OwnedFd>, TaskError> {
    let pidfd = Arc::new(live.pidfd);
    process.set_live(live.pid, Some(Arc::clone(&pidfd)), Status::Running);
    // A process whose streams cannot be set up would run unseen.
    if let Err(error) = process.io.connect(streams, live.console).and_then(|()| process.io.follow_fifo()) {
        reaper::end(pidfd);
        return Err(error.into());
    }
    Ok(pidfd)
}

/// It never ran: whoever waits for it or is attached to it learns so.
pub(super) fn give_up(process: &Arc<Process>, error: &TaskError) {
    const NOT_FOUND: u32 = 127;
    const NOT_EXECUTABLE: u32 = 126;
    let code = match error {
        TaskError::Exec { class: ErrorClass::NotFound, .. }
        | TaskError::OtherExec { class: ErrorClass::NotFound, .. } => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    process.set_exited(Exit { code, at: Timestamp::now(), note: None });
    process.io.let_go();
    process.set_settled();
}
