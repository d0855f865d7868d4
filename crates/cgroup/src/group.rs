//! One cgroup over all hierarchies of the host.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_types::Signal;
use rustix::process::Pid;

use crate::error::CgroupError;
use crate::layout::Layout;
use crate::plan::Setting;
use crate::stats::Stats;

/// A group: one directory in every hierarchy, each open.
///
/// Dropping it closes the descriptors and leaves the group as it is.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Makes the group in every hierarchy, with its parents. An existing directory is taken as it is.
    ///
    /// A `path` that begins with `/` counts from the mounts' roots, another from where this process is.
    pub fn create(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        let _ = layout;
        Err(CgroupError::NotFound { path: path.to_owned() })
    }

    /// Opens a group that exists; hierarchies that lack it are left out.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        let _ = layout;
        Err(CgroupError::NotFound { path: path.to_owned() })
    }

    /// The path it was made with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directories by controller (`cpu`, `name=systemd`; the v2 hierarchy has the empty name, as in `/proc/self/cgroup`).
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        BTreeMap::new()
    }

    /// Carries out a plan.
    pub fn apply(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        let _ = settings;
        Ok(())
    }

    /// Descriptors (close-on-exec) of the v1 `tasks` files. The child that shall live here writes `0` to each **itself**,
    /// while it has one thread: attaching from outside costs a grace period of 8 to 12 ms.
    ///
    /// The v2 hierarchy is not among them: clone into [`Cgroup::cgroup_dir_fd`] instead.
    pub fn attach_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        Ok(Vec::new())
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`: on v2 and hybrid hosts.
    pub fn cgroup_dir_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Moves a process into the v2 directory from outside, for a child that could not be cloned into it. Does nothing without a v2 hierarchy.
    pub fn attach_unified(&self, pid: Pid) -> Result<(), CgroupError> {
        let _ = pid;
        Ok(())
    }

    /// Every process in the group and below it.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        Ok(Vec::new())
    }

    /// Freezes the group and waits until the kernel says it is frozen.
    pub fn freeze(&self, timeout: Duration) -> Result<(), CgroupError> {
        let _ = timeout;
        Ok(())
    }

    /// Lets a frozen group run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Whether the group is frozen (or on the way to it).
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        Ok(false)
    }

    /// Sends a signal to every process, none can escape by forking. For SIGKILL it returns when the group is empty (zombies
    /// included only until their parent reaps them, which the caller may have to do).
    pub fn kill_all(&self, signal: Signal, timeout: Duration) -> Result<(), CgroupError> {
        let _ = (signal, timeout);
        Ok(())
    }

    /// What the group uses now.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        Ok(Stats::default())
    }

    /// A descriptor that becomes readable when the kernel runs out of the group's memory (v1: an eventfd, v2: inotify). Read it
    /// empty (at most 4 KiB, non-blocking), then ask [`Cgroup::oom_kills`]; it also fires when the group is deleted.
    pub fn oom_watch(&self) -> Result<OwnedFd, CgroupError> {
        Err(CgroupError::Unsupported { path: self.path.clone(), what: "memory controller" })
    }

    /// How many processes of the group the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        Ok(0)
    }

    /// Removes the group with everything below it; a group that is gone is fine. Waits while the kernel says EBUSY.
    pub fn delete(&self, timeout: Duration) -> Result<(), CgroupError> {
        let _ = timeout;
        Ok(())
    }
}
