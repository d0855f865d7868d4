//! Exec: one more process in the namespaces and the cgroup of a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_cgroup::CgroupError;
use berth_oci::runtime::Process as ProcessSpec;
use berth_sys::clone::CloneArgs;
use berth_types::Span;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, UnshareFlags};

use crate::channel::{Channel, Message, wait_readable};
use crate::container::{Container, Process, Waiting};
use crate::create::{
    attach_from_outside, check_preserved, clone_in_user_ns, clone_into_pid_ns, errno_of, failed, kill_and_reap,
    reported, write_oom_score,
};
use crate::error::RuntimeError;
use crate::init::{InitContext, Scratch};
use crate::meanwhile::Meanwhile;
use crate::namespaces::Namespace;
use crate::options::{ExecTuning, Fault, Rights, Stdio};
use crate::plan::{Action, ExecInput, Plan, Stage, Step, plan_exec};
use crate::procfs::Procfs;
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
        self.exec_reporting(process, stdio, tuning, spans).map(|(process, _)| process)
    }

    /// The same; what could not be done as asked comes back as warnings.
    ///
    /// # Errors
    /// As [`Container::exec_tuned`].
    pub fn exec_reporting(
        &self,
        process: &ProcessSpec,
        stdio: Stdio,
        tuning: &ExecTuning,
        spans: &mut Vec<Span>,
    ) -> Result<(Process, Vec<String>), RuntimeError> {
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
        check_preserved(tuning.preserve_fds)?;
        let plan = plan_exec(&ExecInput {
            id: &self.state.id,
            process,
            namespaces: &self.namespaces,
            has_seccomp: filter.is_some(),
            annotations: &self.state.annotations,
            inherited: &self.inherited,
        })?;
        let kernel = |source| RuntimeError::Kernel { what: "make a page for the times of the process", source };
        let times = Times::new(plan.steps.len()).map_err(kernel)?;
        let agent = filter.as_ref().and_then(|filter| filter.agent().cloned());
        let mut joining = Joining { container: self, plan, times, filter, tuning, pinned: None, warnings: Vec::new() };
        let joined = joining.join(stdio);
        joining.unpin();
        let Joining { plan, times, mut warnings, .. } = joining;
        let (process, channel) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                times.spans(&plan.steps, 0..plan.steps.len(), spans);
                return Err(error);
            }
        };
        let waiting = Waiting { channel: None, steps: plan.steps, times: Some(times) };
        let hand_over = |listener: OwnedFd| match &agent {
            Some(agent) => agent.hand_over(listener.as_fd(), process.pid, &self.state()),
            None => Ok(()),
        };
        let result = await_exec(&channel, &waiting, Meanwhile::default(), hand_over, &mut warnings);
        if let Some(times) = &waiting.times {
            times.spans(&waiting.steps, 0..waiting.steps.len(), spans);
        }
        match result {
            Ok(()) => Ok((process, warnings)),
            Err(error) => {
                kill_and_reap(&process.pidfd);
                Err(error)
            }
        }
    }
}

/// A process on its way into the container.
struct Joining<'a> {
    container: &'a Container,
    plan: Plan,
    times: Times,
    filter: Option<Filter>,
    tuning: &'a ExecTuning,
    /// The caller's own CPUs, while it stands on others.
    pinned: Option<CpuSet>,
    warnings: Vec<String>,
}

impl Joining<'_> {
    /// Walks the caller's steps up to the clone, then serves the process until it waits for its go.
    fn join(&mut self, stdio: Stdio) -> Result<(Process, Channel), RuntimeError> {
        let mut stdio = Some(stdio);
        let mut made = None;
        for index in self.plan.range(Stage::Prepare) {
            let Some(step) = self.plan.steps.get(index).cloned() else { continue };
            self.begin(index, &step)?;
            match &step.action {
                Action::CheckLabel(label) => label.check_host()?,
                Action::PinCaller(cpus) => self.pin(cpus).map_err(|errno| failed(&step, "", errno))?,
                Action::CloneInit => made = stdio.take().map(|stdio| self.clone_process(stdio)).transpose()?,
                _ => return Err(failed(&step, "this step is not for the caller", Errno::INVAL)),
            }
            self.times.end(index);
        }
        let gone = || RuntimeError::InitDied { step: "clone-init".to_owned() };
        let (mut process, channel) = made.ok_or_else(gone)?;
        match self.attend(&channel, &mut process) {
            Ok(()) => Ok((process, channel)),
            Err(error) => {
                kill_and_reap(&process.pidfd);
                Err(error)
            }
        }
    }

    fn begin(&self, index: usize, step: &Step) -> Result<(), RuntimeError> {
        self.times.begin(index);
        if self.tuning.fault == Some(Fault(index)) {
            return Err(failed(step, "injected fault", Errno::IO));
        }
        Ok(())
    }

    fn pin(&mut self, cpus: &[usize]) -> Result<(), Errno> {
        let before = rustix::thread::sched_getaffinity(None)?;
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu));
        rustix::thread::sched_setaffinity(None, &set)?;
        self.pinned = Some(before);
        Ok(())
    }

    fn unpin(&mut self) {
        if let Some(before) = self.pinned.take() {
            let _as_before = rustix::thread::sched_setaffinity(None, &before);
        }
    }

    fn clone_process(&self, stdio: Stdio) -> Result<(Process, Channel), RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "clone a process into the container", source };
        let cgroup = |source| RuntimeError::Cgroup { what: "enter", source: Box::new(source) };
        let (container, subs) = (self.container, &self.tuning.sub_cgroups);
        let paths = subs.iter().map(|(controller, path)| (controller.as_str(), path.as_str()));
        let sub_group = |source: CgroupError| {
            // In runc's words.
            let what = match &source {
                CgroupError::BadPath { reason, .. } if reason.contains("controller") => "enter: unknown controller for",
                CgroupError::BadPath { .. } => "enter: bad sub cgroup path for",
                CgroupError::NotFound { .. } => "enter: adding pid failed (no such file or directory) to",
                _ => "enter",
            };
            RuntimeError::Cgroup { what, source: Box::new(source) }
        };
        let below = if subs.is_empty() { None } else { Some(container.cgroup.below(paths).map_err(sub_group)?) };
        let group = below.as_ref().unwrap_or(&container.cgroup);
        let (ours, theirs) = Channel::pair().map_err(kernel)?;
        let init = container.init.pidfd.try_clone().map_err(|error| kernel(errno_of(&error)))?;
        // An ordinary user has a right to the other namespaces only from inside the user namespace they belong to.
        let is_ordinary = !rustix::process::geteuid().is_root() && container.namespaces.is_private(Namespace::User);
        let rights = if is_ordinary { Rights::Ordinary } else { Rights::Full };
        let user_ns = is_ordinary.then(|| user_ns_of(&container.init)).transpose().map_err(kernel)?;
        let is_among_host_mounts = !container.namespaces.is_private(Namespace::Mount);
        let rootfs = is_among_host_mounts.then(|| root_of(&container.init)).transpose().map_err(kernel)?;
        let all = container.namespaces.exec_flags();
        let flags = if is_ordinary { all - UnshareFlags::NEWUSER } else { all };
        let context = InitContext {
            plan: &self.plan,
            times: &self.times,
            channel: theirs,
            listener: None,
            fault: self.tuning.fault,
            stdio,
            filter: self.filter.clone(),
            hooks: None,
            state: container.state.clone(),
            preserve_fds: self.tuning.preserve_fds,
            namespaces: Vec::new(),
            join: Some((init, flags)),
            cgroup_fds: group.attach_fds().map_err(cgroup)?,
            cgroup_view: None,
            rootfs,
            sources: Vec::new(),
            scratch: Scratch::default(),
            rights,
        };
        let directory = if is_ordinary { group.cgroup_dir_fd_of_user() } else { group.cgroup_dir_fd() };
        let args = CloneArgs { cgroup: directory, ..CloneArgs::default() };
        // A pidfd stands for the PID namespace as well as a namespace file does (setns(2), Linux 5.8).
        let has_own_pids = container.namespaces.is_private(Namespace::Pid);
        let pid_ns = has_own_pids.then_some(&container.init.pidfd);
        let cloned = match &user_ns {
            Some(user_ns) => clone_in_user_ns(&args, user_ns, pid_ns, context),
            None => clone_into_pid_ns(&args, pid_ns, None, context),
        };
        let child = cloned.map_err(|errno| match errno {
            Errno::SRCH => RuntimeError::State { state: "stopped", wanted: "a process can join only a running one" },
            source => kernel(source),
        })?;
        if is_ordinary && directory.is_none() {
            // Before it is told to go on, so its program begins inside.
            attach_from_outside(Some(group), child.pid).map_err(|source| {
                kill_and_reap(&child.pidfd);
                cgroup(source)
            })?;
        }
        Ok((Process { pid: child.pid, pidfd: child.pidfd, console: None }, ours))
    }

    fn attend(&mut self, channel: &Channel, process: &mut Process) -> Result<(), RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "hear from the joining process", source };
        for index in self.plan.range(Stage::Attend) {
            let Some(step) = self.plan.steps.get(index).cloned() else { continue };
            if let Action::SetOomScore(score) = &step.action {
                self.begin(index, &step)?;
                let warning = write_oom_score(process.pid, *score).map_err(|errno| failed(&step, "", errno))?;
                self.warnings.extend(warning);
                self.times.end(index);
            }
        }
        loop {
            match channel.receive(Some(JOIN_TIMEOUT)).map_err(kernel)? {
                Message::Console(master) => process.console = Some(master),
                Message::Warning(text) => self.warnings.push(text),
                Message::Failed(report) => return Err(reported(report)),
                Message::Ready => return Ok(()),
                Message::End => return Err(RuntimeError::InitDied { step: self.times.current(&self.plan.steps) }),
                _ => {}
            }
        }
    }
}

/// The root of a container that shares the host's mount namespace, as its init has it.
fn root_of(init: &Process) -> Result<OwnedFd, Errno> {
    // A magic link, followed on purpose below a checked procfs.
    of_init(init, "root", OFlags::PATH | OFlags::DIRECTORY)
}

fn user_ns_of(init: &Process) -> Result<OwnedFd, Errno> {
    of_init(init, "ns/user", OFlags::RDONLY)
}

/// A file of procfs about init.
fn of_init(init: &Process, file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let proc = Procfs::open()?;
    let opened =
        rustix::fs::openat(proc.as_fd(), format!("{}/{file}", init.pid), flags | OFlags::CLOEXEC, Mode::empty());
    match wait_readable(init.pidfd.as_fd(), Duration::ZERO) {
        // It lives, so the number was its own.
        Err(Errno::TIMEDOUT) => opened,
        Ok(()) => Err(Errno::SRCH),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_process_that_has_ended_is_not_believed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut process = Process { pid: std::process::id(), pidfd: ours.into_fd(), console: None };
        assert!(user_ns_of(&process).is_ok() && root_of(&process).is_ok());
        // As the pidfd of an ended one; the number is another process's.
        drop(theirs);
        assert_eq!(user_ns_of(&process).unwrap_err(), Errno::SRCH);
        assert_eq!(root_of(&process).unwrap_err(), Errno::SRCH);
        process.pid = u32::MAX;
        assert_eq!(user_ns_of(&process).unwrap_err(), Errno::SRCH);
    }
}
