//! A container in its life after create: signals, freezing, limits, the end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cgroup::{Cgroup, CgroupError, Layout};
use berth_oci::runtime::{Hooks, LinuxResources};
use berth_types::{Classify, ContainerId, ErrorClass, Signal, Timestamp};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::channel::{Channel, wait_readable};
use crate::create::{KILL_TIMEOUT, kill_and_reap, reap};
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::meanwhile::Meanwhile;
use crate::namespaces::{Namespace, Namespaces};
use crate::plan::Step;
use crate::process::Inherited;
use crate::rdt::RdtGroup;
use crate::record::{RECORD_VERSION, Record};
use crate::seccomp::Filter;
use crate::state::{ContainerState, OCI_VERSION, StateDir, Status, process_start};
use crate::trace::Times;

/// For the freezer to say that all processes have stopped.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// A process of ours: the container's init or an exec.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Master side of the pseudo-terminal, when one was asked for.
    pub console: Option<OwnedFd>,
}

/// An init that has not been started.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// `None`: it waits at the socket of its state directory.
    pub(crate) channel: Option<Channel>,
    pub(crate) steps: Vec<Step>,
    pub(crate) times: Option<Times>,
}

/// A container as its state directory knows it.
#[derive(Debug)]
pub struct Saved {
    pub container: Container,
    /// Where its root file system was taken from.
    pub rootfs: PathBuf,
    pub created: Timestamp,
    /// User id of who created it.
    pub owner: u32,
}

/// A created (later running) container, owned by the shim for its life.
#[derive(Debug)]
pub struct Container {
    pub init: Process,
    /// What could not be done as asked without the container failing for it.
    pub warnings: Vec<String>,
    pub(crate) state: ContainerState,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) namespaces: Namespaces,
    pub(crate) filter: Option<Filter>,
    pub(crate) cgroup: Cgroup,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) state_dir: Option<StateDir>,
    pub(crate) inherited: Inherited,
    pub(crate) rdt: Option<RdtGroup>,
    pub(crate) meanwhile: Meanwhile,
}

fn cgroup_error(what: &'static str) -> impl Fn(CgroupError) -> RuntimeError {
    move |source| RuntimeError::Cgroup { what, source: Box::new(source) }
}

impl Container {
    /// The container as the specification's state document, with the status of this moment.
    pub fn state(&self) -> ContainerState {
        let mut state = self.state.clone();
        state.status = self.status();
        if state.status == Status::Stopped {
            state.pid = 0;
        }
        state
    }

    pub fn status(&self) -> Status {
        if self.is_gone() {
            Status::Stopped
        } else if self.cgroup.frozen().unwrap_or(false) {
            Status::Paused
        } else if self.waiting.is_some() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// Whether init has ended (its status may still be to take).
    fn is_gone(&self) -> bool {
        wait_readable(self.init.pidfd.as_fd(), Duration::ZERO).is_ok()
    }

    /// Sends a signal to init.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<(), RuntimeError> {
        match berth_sys::shim_process::pidfd_send_signal(self.init.pidfd.as_fd(), signal.number()) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(RuntimeError::State { state: "stopped", wanted: "it has no process to signal" }),
            Err(source) => Err(RuntimeError::Kernel { what: "signal the container's init", source }),
        }
    }

    /// Every process of the cgroup: `cgroup.kill`, else freeze, signal, thaw. Returns when the cgroup is empty or the deadline is over.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn kill_all(&self, signal: Signal) -> Result<(), RuntimeError> {
        self.cgroup.kill_all(signal, KILL_TIMEOUT).map_err(cgroup_error("kill the processes of"))
    }

    /// # Errors
    /// `FailedPrecondition` when init has ended; `DeadlineExceeded` when a process does not stop.
    pub fn pause(&self) -> Result<(), RuntimeError> {
        if self.is_gone() {
            return Err(RuntimeError::State { state: "stopped", wanted: "only a running container can be paused" });
        }
        self.cgroup.freeze(FREEZE_TIMEOUT).map_err(cgroup_error("freeze"))
    }

    /// # Errors
    /// The cgroup's.
    pub fn resume(&self) -> Result<(), RuntimeError> {
        self.cgroup.thaw().map_err(cgroup_error("thaw"))
    }

    /// Every process of the container, as the caller's PID namespace numbers them.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn pids(&self) -> Result<Vec<u32>, RuntimeError> {
        let pids = self.cgroup.pids().map_err(cgroup_error("list the processes of"))?;
        Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).collect())
    }

    /// Changes the limits that are named, and leaves the others.
    ///
    /// # Errors
    /// `InvalidArgument`, `FailedPrecondition` when this host cannot enforce one, the cgroup's.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let layout = Layout::detect().map_err(cgroup_error("find"))?;
        let settings = berth_cgroup::plan(&layout, &crate::cgroups::update(resources)?)?;
        self.cgroup.apply(&settings).map_err(cgroup_error("limit"))
    }

    /// What the container uses now.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn stats(&self) -> Result<berth_cgroup::Stats, RuntimeError> {
        self.cgroup.stats().map_err(cgroup_error("measure"))
    }

    /// Becomes readable when the container may have run out of memory; see [`Cgroup::oom_watch`].
    ///
    /// # Errors
    /// `FailedPrecondition` without a memory controller.
    pub fn oom_watch(&self) -> Result<OwnedFd, RuntimeError> {
        self.cgroup.oom_watch().map_err(cgroup_error("watch"))
    }

    /// How many of its processes the kernel has killed for lack of memory.
    ///
    /// # Errors
    /// As [`Container::oom_watch`].
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        self.cgroup.oom_kills().map_err(cgroup_error("count the kills in"))
    }

    /// Handle of the container's cgroup: stats, OOM notification fd, freezer state.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Kills what is left, removes cgroup and state. Idempotent.
    ///
    /// # Errors
    /// What could not be removed; the rest is removed all the same.
    pub fn delete(self) -> Result<(), RuntimeError> {
        self.delete_reporting().map(drop)
    }

    /// The same; hooks that failed after the end come back as warnings (runtime-spec runtime, "Lifecycle" 13).
    ///
    /// # Errors
    /// As [`Container::delete`].
    pub fn delete_reporting(mut self) -> Result<Vec<String>, RuntimeError> {
        self.remove()
    }

    /// The same, and what could not be removed can be tried again. Hooks run once, whatever comes of the rest.
    ///
    /// # Errors
    /// As [`Container::delete`].
    pub fn remove(&mut self) -> Result<Vec<String>, RuntimeError> {
        // An init that still waits must not be let go by the end of its channel; a frozen one dies only when it is thawed (v1).
        let _gone_already = self.kill(Signal::KILL);
        if self.cgroup.frozen().unwrap_or(false) {
            self.resume()?;
        }
        kill_and_reap(&self.init.pidfd);
        self.waiting = None;
        let killed = self.kill_all(Signal::KILL);
        reap(&self.init.pidfd);
        let removed = self.cgroup.delete(KILL_TIMEOUT).map_err(cgroup_error("remove"));
        let mut state = self.state.clone();
        (state.status, state.pid) = (Status::Stopped, 0);
        let class = self.rdt.as_ref().map_or(Ok(()), RdtGroup::remove).map_err(|source| RuntimeError::File {
            what: "remove the resctrl group of",
            path: self.state.id.clone(),
            source,
        });
        let hooks = self.hooks.take();
        let warnings = hooks::run_all(HookStage::Poststop, hooks.as_ref(), &state.to_json(), self.meanwhile);
        let forgotten = self.state_dir.as_ref().map_or(Ok(()), StateDir::remove);
        // A group that could be removed was empty, whatever killing said.
        removed.or_else(|error| killed.and(Err(error))).and(class).and(forgotten).map(|()| warnings)
    }

    /// Writes down what [`Container::load`] needs.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&mut self, directory: &StateDir, rootfs: &Path, created: Timestamp) -> Result<(), RuntimeError> {
        let record = Record {
            version: RECORD_VERSION,
            id: self.id()?,
            bundle: self.state.bundle.clone(),
            rootfs: rootfs.to_owned(),
            pid: self.init.pid,
            pid_start: process_start(self.init.pid).unwrap_or(0),
            cgroup: if self.cgroup.is_absent() { String::new() } else { self.cgroup.path().to_owned() },
            created,
            owner: rustix::process::getuid().as_raw(),
            namespaces: self.namespaces.clone(),
            hooks: self.hooks.clone(),
            annotations: self.state.annotations.clone(),
            inherited: self.inherited.clone(),
            rdt: self.rdt.clone(),
        };
        if let Some(filter) = &self.filter {
            directory.save_filter(filter)?;
        }
        directory.save(&record)?;
        self.state_dir = Some(directory.clone());
        Ok(())
    }

    /// Whether programs of somebody else's run at its start, or at its end.
    pub const fn has_hooks(&self) -> bool {
        self.hooks.is_some()
    }

    fn id(&self) -> Result<ContainerId, RuntimeError> {
        ContainerId::of_runtime(&self.state.id).map_err(|_| RuntimeError::Container {
            id: self.state.id.clone(),
            problem: "has no valid id",
            class: ErrorClass::InvalidArgument,
        })
    }

    /// A container made by another process, from its state directory alone. One whose init has ended is loaded as stopped.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` while it is being created, `DataLoss`.
    pub fn load(directory: &StateDir) -> Result<Saved, RuntimeError> {
        let record = directory.load()?;
        // Its group may be gone with its processes, and a container may have none.
        let cgroup = match record.cgroup.as_str() {
            "" => Cgroup::absent(""),
            path => Layout::detect()
                .and_then(|layout| Cgroup::open(&layout, path))
                .or_else(
                    |error| if error.class() == ErrorClass::NotFound { Ok(Cgroup::absent(path)) } else { Err(error) },
                )
                .map_err(cgroup_error("open"))?,
        };
        let (pidfd, is_alive) = find_process(record.pid, record.pid_start)?;
        let waiting =
            (is_alive && directory.awaits_start()).then(|| Waiting { channel: None, steps: Vec::new(), times: None });
        let container = Self {
            init: Process { pid: record.pid, pidfd, console: None },
            warnings: Vec::new(),
            state: ContainerState {
                oci_version: OCI_VERSION.to_owned(),
                id: record.id.to_string(),
                status: Status::Created,
                pid: record.pid,
                bundle: record.bundle,
                annotations: record.annotations,
            },
            hooks: record.hooks,
            namespaces: record.namespaces,
            // Read when a process joins.
            filter: None,
            cgroup,
            waiting,
            state_dir: Some(directory.clone()),
            inherited: record.inherited,
            rdt: record.rdt,
            meanwhile: Meanwhile::default(),
        };
        Ok(Saved { container, rootfs: record.rootfs, created: record.created, owner: record.owner })
    }

    /// Whether init is the first process of a PID namespace, so that everything in it ends with it.
    pub fn has_own_pids(&self) -> bool {
        self.namespaces.is_new(Namespace::Pid)
    }

    /// Flags of seccomp(2) with which its filter is loaded; `None` without one.
    pub fn seccomp_flags(&self) -> Option<u32> {
        self.filter.as_ref().map(Filter::flags)
    }

    pub fn bundle(&self) -> &Path {
        &self.state.bundle
    }
}

/// The pidfd of the process of this number that began then, and whether it is there. For one that is not, a descriptor that is readable,
/// as the pidfd of an ended one is. It is opened before the identity is looked at: a number that goes to another process in between
/// would be taken for the container's, and signalled.
fn find_process(pid: u32, start: u64) -> Result<(OwnedFd, bool), RuntimeError> {
    let kernel = |source| RuntimeError::Kernel { what: "find the container's init", source };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let opened = raw.map_or(Err(Errno::SRCH), |raw| rustix::process::pidfd_open(raw, PidfdFlags::empty()));
    match opened {
        Ok(pidfd) if process_start(pid) == Some(start) => return Ok((pidfd, true)),
        // EINVAL, since Linux 6.15 ENOENT: a thread of somebody's has the number now.
        Ok(_) | Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(kernel(errno)),
    }
    // A closed socket pair is readable at once; a signal sent to it fails, as to a process that is gone.
    Channel::pair().map(|(ours, _closed)| (ours.into_fd(), false)).map_err(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_the_record_is_found() {
        let is_ended = |fd: &OwnedFd| wait_readable(fd.as_fd(), Duration::ZERO).is_ok();
        let own = std::process::id();
        let start = process_start(own).unwrap();
        let (pidfd, is_there) = find_process(own, start).unwrap();
        assert!(is_there && !is_ended(&pidfd));
        // The number is somebody else's by now, no process's, a thread's, or none at all.
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
        for (pid, start) in [(own, start + 1), (u32::MAX, 1), (0, 1), (thread.join().unwrap(), 1)] {
            let (pidfd, is_there) = find_process(pid, start).unwrap();
            assert!(!is_there && is_ended(&pidfd), "{pid}");
            assert!(berth_sys::shim_process::pidfd_send_signal(pidfd.as_fd(), 0).is_err());
        }
    }

    /// A thread's number, while the thread is there: `pidfd_open` says EINVAL (ENOENT since Linux 6.15), which is no error of ours.
    #[test]
    fn a_number_that_a_thread_has_now_is_not_the_containers() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            ended.recv().ok();
        });
        let number = told.recv().unwrap();
        let (pidfd, is_there) = find_process(number, 1).unwrap();
        assert!(!is_there && wait_readable(pidfd.as_fd(), Duration::ZERO).is_ok());
        drop(end);
        thread.join().unwrap();
    }
}
