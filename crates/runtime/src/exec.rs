//! Exec: one more process in the namespaces and the cgroup of a running container.

use std::time::Duration;

use berth_cgroup::Cgroup;
use berth_oci::runtime::Process as ProcessSpec;
use berth_sys::clone::CloneArgs;
use berth_types::Span;
use rustix::io::Errno;

use crate::channel::{Channel, Message};
use crate::container::{Container, Process, Waiting};
use crate::create::{clone_into_pid_ns, kill_and_reap, reported, write_oom_score};
use crate::error::RuntimeError;
use crate::init::{InitContext, Scratch};
use crate::namespaces::Namespace;
use crate::options::{ExecTuning, Stdio};
use crate::plan::{Action, Plan, Stage, plan_exec};
use crate::seccomp::Filter;
use crate::start::await_exec;
use crate::state::Status;
use crate::trace::Times;

/// For the process to be ready: joining is a handful of calls.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Container {
    /// Starts a further process in the container's namespaces and cgroup; returns once it has exec'd or failed.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container is paused or stopped; what the process reported.
    pub fn exec(&self, process: &ProcessSpec, stdio: Stdio, spans: &mut Vec<Span>) -> Result<Process, RuntimeError> {
        self.exec_tuned(process, stdio, &ExecTuning::default(), spans)
    }

    /// The same with further switches.
    ///
    /// # Errors
    /// As [`Container::exec`]; `NotFound` and `InvalidArgument` for a sub-group.
    pub fn exec_tuned(
        &self,
        process: &ProcessSpec,
        stdio: Stdio,
        tuning: &ExecTuning,
        spans: &mut Vec<Span>,
    ) -> Result<Process, RuntimeError> {
        match self.status() {
            Status::Stopped => {
                return Err(RuntimeError::State { state: "stopped", wanted: "a process can join only a running one" });
            }
            Status::Paused if !tuning.even_paused => {
                return Err(RuntimeError::State { state: "paused", wanted: "resume it before a process joins" });
            }
            _ => {}
        }
        let filter = match (&self.filter, &self.state_dir) {
            (None, Some(directory)) => directory.load_filter()?,
            (filter, _) => filter.clone(),
        };
        let plan = plan_exec(process, &self.namespaces, filter.is_some(), &self.state.annotations)?;
        let kernel = |source| RuntimeError::Kernel { what: "make a page for the times of the process", source };
        let times = Times::new(plan.steps.len()).map_err(kernel)?;
        let joined = self.join(&plan, &times, stdio, filter, tuning);
        let (process, channel) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                times.spans(&plan.steps, 0..plan.steps.len(), spans);
                return Err(error);
            }
        };
        let waiting = Waiting { channel: None, steps: plan.steps, times: Some(times) };
        let mut warnings = Vec::new();
        let result = await_exec(&channel, &waiting, &mut warnings);
        if let Some(times) = &waiting.times {
            times.spans(&waiting.steps, 0..waiting.steps.len(), spans);
        }
        match result {
            Ok(()) => Ok(process),
            Err(error) => {
                kill_and_reap(&process.pidfd);
                Err(error)
            }
        }
    }

    /// Clones the process and serves it until it waits for its go.
    fn join(
        &self,
        plan: &Plan,
        times: &Times,
        stdio: Stdio,
        filter: Option<Filter>,
        tuning: &ExecTuning,
    ) -> Result<(Process, Channel), RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "clone a process into the container", source };
        let cgroup = |source| RuntimeError::Cgroup { what: "enter", source: Box::new(source) };
        let subs = tuning.sub_cgroups.iter().map(|(controller, path)| (controller.as_str(), path.as_str()));
        let below = if tuning.sub_cgroups.is_empty() { None } else { Some(self.cgroup.below(subs).map_err(cgroup)?) };
        let group = below.as_ref().unwrap_or(&self.cgroup);
        let (ours, theirs) = Channel::pair().map_err(kernel)?;
        let init = self.init.pidfd.try_clone().map_err(|error| kernel(errno_of(&error)))?;
        let context = InitContext {
            plan,
            times,
            channel: theirs,
            listener: None,
            fault: None,
            stdio,
            filter,
            hooks: None,
            state: self.state.clone(),
            preserve_fds: tuning.preserve_fds,
            namespaces: Vec::new(),
            join: Some((init, self.namespaces.exec_flags())),
            cgroup_fds: group.attach_fds().map_err(cgroup)?,
            cgroup_view: None,
            rootfs: None,
            sources: Vec::new(),
            scratch: Scratch::default(),
        };
        let args = CloneArgs { namespaces: 0, cgroup: Cgroup::cgroup_dir_fd(group), sibling: false };
        // A pidfd stands for the PID namespace as well as a namespace file does (setns(2), Linux 5.8).
        let has_own_pids = self.namespaces.is_private(Namespace::Pid);
        let child =
            clone_into_pid_ns(&args, has_own_pids.then_some(&self.init.pidfd), context).map_err(
                |errno| match errno {
                    Errno::SRCH => {
                        RuntimeError::State { state: "stopped", wanted: "a process can join only a running one" }
                    }
                    source => kernel(source),
                },
            )?;
        let mut process = Process { pid: child.pid, pidfd: child.pidfd, console: None };
        match attend(&ours, plan, times, &mut process) {
            Ok(()) => Ok((process, ours)),
            Err(error) => {
                kill_and_reap(&process.pidfd);
                Err(error)
            }
        }
    }
}

fn attend(channel: &Channel, plan: &Plan, times: &Times, process: &mut Process) -> Result<(), RuntimeError> {
    let kernel = |source| RuntimeError::Kernel { what: "hear from the joining process", source };
    for index in plan.range(Stage::Attend) {
        if let Some(Action::SetOomScore(score)) = plan.steps.get(index).map(|step| &step.action) {
            times.begin(index);
            write_oom_score(process.pid, *score)
                .map_err(|source| RuntimeError::Kernel { what: "set the process's OOM score", source })?;
            times.end(index);
        }
    }
    loop {
        match channel.receive(Some(JOIN_TIMEOUT)).map_err(kernel)? {
            Message::Console(master) => process.console = Some(master),
            Message::Failed(report) => return Err(reported(report)),
            Message::Ready => return Ok(()),
            Message::End => return Err(RuntimeError::InitDied { step: times.current(&plan.steps) }),
            _ => {}
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
