//! Running out of memory: a descriptor that tells, and the kernel's count.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags, openat};

use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file::Directory;
use crate::group::{Cgroup, HomeDirectory, child_names};

const CONTROL: &str = "memory.oom_control";
const REGISTER: &str = "cgroup.event_control";
const EVENTS: &str = "memory.events";

impl Cgroup {
    /// A descriptor (close-on-exec, non-blocking) that becomes readable when the kernel runs out of the group's memory: v1 an eventfd, v2
    /// inotify on `memory.events`.
    ///
    /// Read it empty (4 KiB are enough), then ask [`Cgroup::oom_kills`]. It tells that something may have happened, not what: it also
    /// fires when the group is deleted and, on v2, when a limit is hit without a kill. On v1 it fires before the kill is
    /// counted, so ask again when a process has died.
    ///
    /// # Errors
    /// `FailedPrecondition` where the group has no memory controller.
    pub fn oom_watch(&self) -> Result<OwnedFd, CgroupError> {
        match self.memory()? {
            HomeDirectory::V1(directory) => watch_v1(directory),
            HomeDirectory::V2(unified) => watch_v2(&unified.directory),
        }
    }

    /// How many processes of the group and below it the kernel killed for lack of memory. Of a scope made by this process that
    /// systemd has removed meanwhile, those that the kernel's log knows.
    ///
    /// # Errors
    /// `NotFound` when the group is gone; `FailedPrecondition` where it has no memory controller.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match self.memory()? {
            HomeDirectory::V1(directory) => kills_v1(directory, 0),
            HomeDirectory::V2(unified) => {
                let directory = &unified.directory;
                let text = match (directory.read_optional(EVENTS), &self.log) {
                    (Ok(Some(text)), _) => text,
                    (_, Some(log)) if !directory.path.exists() => {
                        return Ok(log.kills(self.path.trim_start_matches("systemd:")));
                    }
                    (other, _) => other?.ok_or_else(|| self.no_memory())?,
                };
                value_of(&text, "oom_kill").ok_or_else(|| directory.parse_error(EVENTS, &text))
            }
        }
    }

    fn memory(&self) -> Result<HomeDirectory<'_>, CgroupError> {
        self.home(Controller::Memory).ok_or_else(|| self.no_memory())
    }

    fn no_memory(&self) -> CgroupError {
        CgroupError::Unsupported { path: self.path.clone(), what: "memory controller" }
    }
}

/// The number after a key, in files of lines `key number`.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

fn watch_v1(directory: &Directory) -> Result<OwnedFd, CgroupError> {
    let fail = |file: &str| {
        let file = directory.file(file);
        move |source| CgroupError::Watch { file, source }
    };
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fail(CONTROL))?;
    let control =
        openat(&directory.fd, CONTROL, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail(CONTROL))?;
    // The kernel looks both numbers up during the write and holds what it needs; only the eventfd is used afterwards.
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    directory.write(REGISTER, &line).map_err(fail(REGISTER))?;
    Ok(event)
}

fn watch_v2(directory: &Directory) -> Result<OwnedFd, CgroupError> {
    let file = directory.file(EVENTS);
    let watch = || {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, &file, inotify::WatchFlags::MODIFY)?;
        Ok(fd)
    };
    watch().map_err(|source| CgroupError::Watch { file: file.clone(), source })
}

/// The v1 counter is of its own group only, so groups below are added. Before Linux 4.13 there is none.
fn kills_v1(directory: &Directory, depth: usize) -> Result<u64, CgroupError> {
    const DEPTH_MAX: usize = 256;
    let mut kills = value_of(&directory.read(CONTROL)?, "oom_kill").unwrap_or(0);
    if depth < DEPTH_MAX {
        for name in child_names(directory)? {
            // A group that went away between listing and opening takes its count along.
            if let Ok(child) = Directory::open(directory.path.join(name)) {
                kills += kills_v1(&child, depth + 1).unwrap_or(0);
            }
        }
    }
    Ok(kills)
}
