//! Signals to everybody in the group. No process may escape by forking: `cgroup.kill`, or else freeze, signal each, thaw.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::time::Duration;

use berth_types::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::CgroupError;
use crate::file::Directory;
use crate::freezer::wait_for_event;
use crate::group::{Cgroup, child_names};
use crate::wait::Deadline;

const KILL: &str = "cgroup.kill";
/// Descriptors held at a time.
const BATCH: usize = 256;
/// How long one round waits for the freezer; when it cannot, the signals go out all the same, and the next round gets the rest.
const FREEZE_ROUND: Duration = Duration::from_millis(500);
/// How long killed processes get to go before the next round.
const SETTLE_ROUND: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Every process in the group and below it, in any hierarchy.
    ///
    /// Processes that are not visible in our pid namespace are left out.
    ///
    /// # Errors
    /// When a list cannot be read; a directory that is gone has none.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = BTreeSet::new();
        for directory in self.directories() {
            collect(directory, &mut pids, 0)?;
        }
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// Sends a signal to every process; none can escape by forking.
    ///
    /// For SIGKILL it returns when nobody lives in the group any more, and a frozen group is thawed so its processes can die. Other
    /// signals leave a frozen group frozen.
    ///
    /// # Errors
    /// `DeadlineExceeded` when a killed process has not gone (it may hang in the kernel).
    pub fn kill_all(&self, signal: Signal, timeout: Duration) -> Result<(), CgroupError> {
        let mut deadline = Deadline::after(timeout);
        if signal != Signal::KILL {
            return self.signal_once(signal, &deadline);
        }
        if self.kill_unified(&deadline)? {
            return Ok(());
        }
        loop {
            self.signal_once(signal, &deadline)?;
            let mut settle = Deadline::after(SETTLE_ROUND.min(deadline.remaining()));
            loop {
                if self.pids()?.is_empty() {
                    return Ok(());
                }
                if !settle.pause() {
                    break;
                }
            }
            if !deadline.pause() {
                let path = self.path.clone();
                return Err(CgroupError::Deadline { path, wanted: "empty after SIGKILL", waited: deadline.waited() });
            }
        }
    }

    /// Kills through `cgroup.kill` (Linux 5.14). `true` when that emptied the group.
    fn kill_unified(&self, deadline: &Deadline) -> Result<bool, CgroupError> {
        let Some(unified) = self.unified() else {
            return Ok(false);
        };
        match unified.directory.write(KILL, "1") {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::OPNOTSUPP) => return Ok(false),
            Err(source) => {
                let (file, value) = (unified.directory.file(KILL), "1".to_owned());
                return Err(CgroupError::Write { limit: "kill", file, value, source });
            }
        }
        if !unified.alone {
            // A process in a frozen v1 group dies only when it may run. There is no other freezer to thaw on v2.
            if self.frozen().unwrap_or(false) {
                self.thaw()?;
            }
        }
        let empty = wait_for_event(&unified.directory, "populated", false, deadline, self.unit.is_some())?;
        // On a hybrid host a process may be in the v1 directories only.
        Ok(empty && (unified.alone || self.pids()?.is_empty()))
    }

    /// One round: freeze, signal each, thaw. A group that was frozen before stays so, unless it is to die.
    fn signal_once(&self, signal: Signal, deadline: &Deadline) -> Result<(), CgroupError> {
        let was_frozen = self.frozen().unwrap_or(false);
        // A group that cannot be frozen (a process hangs in the kernel) is signalled all the same.
        let froze = !was_frozen && self.freeze(FREEZE_ROUND.min(deadline.remaining())).is_ok();
        let outcome = self.signal_each(signal);
        let thawed = if froze || (was_frozen && signal == Signal::KILL) { self.thaw() } else { Ok(()) };
        outcome.and(thawed)
    }

    /// A number may be reused between reading and signalling, so each process is held by a pidfd and must still be listed after that.
    fn signal_each(&self, signal: Signal) -> Result<(), CgroupError> {
        let listed = self.pids()?;
        let mut failure = Ok(());
        for batch in listed.chunks(BATCH) {
            let held: Vec<_> =
                batch.iter().filter_map(|pid| Some((*pid, pidfd_open(*pid, PidfdFlags::empty()).ok()?))).collect();
            let still: HashSet<Pid> = self.pids()?.into_iter().collect();
            for (pid, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let outcome = berth_sys::shim_process::pidfd_send_signal(pidfd.as_fd(), signal.number());
                if let Err(source) = outcome
                    && source != Errno::SRCH
                {
                    let (pid, path) = (pid.as_raw_nonzero().get(), self.path.clone());
                    failure = failure.and(Err(CgroupError::Signal { pid, path, source }));
                }
            }
        }
        failure
    }
}

fn collect(directory: &Directory, pids: &mut BTreeSet<i32>, depth: usize) -> Result<(), CgroupError> {
    /// Nested deeper than this the tree is an attack on our stack.
    const DEPTH_MAX: usize = 256;
    let text = match directory.read_optional("cgroup.procs") {
        Ok(text) => text.unwrap_or_default(),
        // Removed between opening and reading.
        Err(CgroupError::Read { source: Errno::NODEV, .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    // 0 stands for a process of another pid namespace; as a target it would be our own process group.
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    if depth >= DEPTH_MAX {
        return Ok(());
    }
    for child in child_names(directory)? {
        let path = directory.path.join(child);
        match Directory::open(path.clone()) {
            Ok(child) => collect(&child, pids, depth + 1)?,
            Err(Errno::NOENT) => {}
            Err(source) => return Err(CgroupError::Open { path, source }),
        }
    }
    Ok(())
}
