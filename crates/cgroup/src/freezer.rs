//! Freezing: every process of the group stops where it is, so none can fork away while we look at it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, inotify, openat};
use rustix::io::Errno;

use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file::Directory;
use crate::group::{Cgroup, HomeDirectory};
use crate::wait::{Deadline, timespec};

const STATE: &str = "freezer.state";
const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";
/// A v1 freezer can hang between two processes that wait for each other uninterruptibly (vfork); letting all go helps.
const READS_BEFORE_THAW: u32 = 32;

impl Cgroup {
    /// Freezes the group and waits until the kernel says it is frozen. When it does not in time, the group is thawed again.
    ///
    /// # Errors
    /// `DeadlineExceeded`; `FailedPrecondition` where the host has no freezer.
    pub fn freeze(&self, timeout: Duration) -> Result<(), CgroupError> {
        let mut deadline = Deadline::after(timeout);
        let frozen = match self.freezer()? {
            HomeDirectory::V1(directory) => freeze_v1(directory, &mut deadline),
            HomeDirectory::V2(unified) => freeze_v2(&unified.directory, &deadline, self.unit.is_some()),
        };
        match frozen {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.thaw()?;
                Err(CgroupError::Deadline { path: self.path.clone(), wanted: "frozen", waited: deadline.waited() })
            }
            Err(error) => {
                // Half asked for is not asked for; what went wrong first is what to tell.
                let _thawed = self.thaw();
                Err(error)
            }
        }
    }

    /// Lets a frozen group run again.
    ///
    /// # Errors
    /// `FailedPrecondition` where the host has no freezer.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.freezer()? {
            HomeDirectory::V1(directory) => write(directory, STATE, "THAWED"),
            HomeDirectory::V2(unified) => write(&unified.directory, FREEZE, "0"),
        }
    }

    /// Whether the group is frozen or on the way to it, by us or through an ancestor.
    ///
    /// # Errors
    /// `FailedPrecondition` where the host has no freezer.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        match self.freezer()? {
            HomeDirectory::V1(directory) => Ok(directory.read(STATE)?.trim() != "THAWED"),
            HomeDirectory::V2(unified) => {
                let directory = &unified.directory;
                Ok(directory.read(FREEZE)?.trim() == "1" || event(&directory.read(EVENTS)?, "frozen"))
            }
        }
    }

    fn freezer(&self) -> Result<HomeDirectory<'_>, CgroupError> {
        self.home(Controller::Freezer)
            .ok_or_else(|| CgroupError::Unsupported { path: self.path.clone(), what: "freezer" })
    }
}

/// Whether `cgroup.events` says 1 for a key.
pub(crate) fn event(text: &str, key: &str) -> bool {
    text.lines().filter_map(|line| line.split_once(' ')).any(|(name, value)| name == key && value == "1")
}

/// Waits until `cgroup.events` says what is wanted of a key. `false` at the deadline; gone is taken for "no".
///
/// A directory that somebody else may remove (systemd does so with an empty scope) needs a watch for that: the kernel holds a second
/// notification within 10 ms back, and forgets it when the directory goes.
pub(crate) fn wait_for_event(
    directory: &Directory,
    key: &str,
    wanted: bool,
    deadline: &Deadline,
    may_vanish: bool,
) -> Result<bool, CgroupError> {
    let fail = |source| CgroupError::Read { file: directory.file(EVENTS), source };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = match openat(&directory.fd, EVENTS, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(!wanted),
        Err(errno) => return Err(fail(errno)),
    };
    let watch = if may_vanish { watch_parent(directory).map_err(fail)? } else { None };
    let mut buffer = [0_u8; 512];
    loop {
        let length = match rustix::io::pread(&fd, &mut buffer, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => return Ok(!wanted),
            Err(errno) => return Err(fail(errno)),
        };
        if event(&String::from_utf8_lossy(&buffer[..length]), key) == wanted {
            return Ok(true);
        }
        let remaining = deadline.remaining();
        if remaining.is_zero() {
            return Ok(false);
        }
        let mut polled = vec![PollFd::new(&fd, PollFlags::PRI)];
        polled.extend(watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)));
        match poll(&mut polled, Some(&timespec(remaining))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
        if let Some(watch) = &watch {
            // Whose removal it was shows when the file is read again.
            let _emptied = rustix::io::read(watch, &mut [0_u8; 4096]);
        }
    }
}

/// Tells of directories removed beside this one; `None` when the parent itself is gone.
fn watch_parent(directory: &Directory) -> Result<Option<OwnedFd>, Errno> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let parent = directory.path.parent().unwrap_or(&directory.path);
    match inotify::add_watch(&watch, parent, inotify::WatchFlags::DELETE) {
        Ok(_) => Ok(Some(watch)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn freeze_v1(directory: &Directory, deadline: &mut Deadline) -> Result<bool, CgroupError> {
    loop {
        // Written each time: processes that came in since the last write are still to be frozen.
        write(directory, STATE, "FROZEN")?;
        for _ in 0..READS_BEFORE_THAW {
            if directory.read(STATE)?.trim() == "FROZEN" {
                return Ok(true);
            }
            if !deadline.pause() {
                return Ok(false);
            }
        }
        write(directory, STATE, "THAWED")?;
        deadline.hurry();
    }
}

fn freeze_v2(directory: &Directory, deadline: &Deadline, may_vanish: bool) -> Result<bool, CgroupError> {
    write(directory, FREEZE, "1")?;
    wait_for_event(directory, "frozen", true, deadline, may_vanish)
}

fn write(directory: &Directory, file: &'static str, value: &str) -> Result<(), CgroupError> {
    directory.write(file, value).map_err(|source| CgroupError::Write {
        limit: "the freezer",
        file: directory.file(file),
        value: value.to_owned(),
        source,
    })
}
