//! `<bundle>/task.json` (version 1): what `delete` needs to clean up after a shim that died. Written before anything
//! else is executed, and again when it is made; never read by the shim itself.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::oci::OciRuntime;

const FILE: &str = "task.json";
/// While it is written.
const NEXT: &str = "task.json.new";
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Init on the host, and when it began (clock ticks since boot): together they name one process.
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    /// Empty: none of its own.
    pub(crate) cgroup: String,
    /// Another runtime that made it and has state of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<OciRuntime>,
    /// Another shim behind ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shim: Option<OtherShim>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OtherShim {
    pub(crate) binary: PathBuf,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
}

impl OtherShim {
    pub(crate) fn new(binary: PathBuf, pid: u32) -> Self {
        Self { binary, pid, start_ticks: start_ticks(pid).unwrap_or_default() }
    }

    /// About to be started: it is found by what it says in its bundle.
    pub(crate) const fn expected(binary: PathBuf) -> Self {
        Self { binary, pid: 0, start_ticks: 0 }
    }

    /// Kills it, by a descriptor opened before its identity is checked; the descriptor, to wait at.
    pub(crate) fn kill(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let is_it = start_ticks(self.pid) == Some(self.start_ticks);
        (is_it && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()).then_some(pidfd)
    }
}

impl Record {
    pub(crate) fn new(pid: u32, cgroup: &str) -> Self {
        let start_ticks = start_ticks(pid).unwrap_or_default();
        Self { version: VERSION, pid, start_ticks, cgroup: cgroup.to_owned(), runtime: None, shim: None }
    }

    /// By rename: a shim that is killed meanwhile leaves the old record or the new one, never half of one, with which nothing could be
    /// cleaned up.
    pub(crate) fn store(&self, bundle: &Path) -> io::Result<()> {
        let next = bundle.join(NEXT);
        std::fs::write(&next, serde_json::to_vec(self)?)?;
        std::fs::rename(next, bundle.join(FILE))
    }

    /// Nothing is left to clean up.
    pub(crate) fn remove(bundle: &Path) {
        std::fs::remove_file(bundle.join(FILE)).ok();
    }

    /// `None` when the shim died before create.
    pub(crate) fn load(bundle: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match std::fs::File::open(bundle.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?.take(BYTES_MAX).read_to_end(&mut bytes)?,
        };
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.version != VERSION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Some(record))
    }

    /// Whether nothing was made yet that it would name.
    pub(crate) const fn is_of_nothing(&self) -> bool {
        self.pid == 0 && self.cgroup.is_empty() && self.runtime.is_none() && self.shim.is_none()
    }

    /// Whether the process it names still exists.
    pub(crate) fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// Clock ticks since boot, as `/proc/<pid>/stat` counts them: proc_uptime(5) has hundredths of seconds, and so has Linux's `USER_HZ`.
pub(crate) fn ticks_now() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?)
}

/// Field 22 of `/proc/<pid>/stat`; the name in field 2 may hold anything, but not after its last parenthesis.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_identity() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), None);
        let record = Record::new(std::process::id(), "/x");
        record.store(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap().unwrap(), record);
        assert!(record.is_alive());
        assert!(!Record { start_ticks: 1, ..record }.is_alive());
    }

    #[test]
    fn processes_begin_by_the_same_clock() {
        let before = ticks_now().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let begun = start_ticks(child.id()).unwrap();
        let after = ticks_now().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((before..=after).contains(&begun), "{before} {begun} {after}");
        assert!(start_ticks(std::process::id()).unwrap() <= before);
    }

    /// A shim may be killed at any instant: whoever reads meanwhile has a whole record.
    #[test]
    fn it_is_whole_at_every_instant() {
        let dir = tempfile::tempdir().unwrap();
        let record = |pid| Record { pid, ..Record::new(std::process::id(), &"/x".repeat(1000)) };
        record(1).store(dir.path()).unwrap();
        let old = std::fs::File::open(dir.path().join(FILE)).unwrap();
        record(2).store(dir.path()).unwrap();
        // The old bytes were not touched, so there was no instant without a record.
        let kept: Record = serde_json::from_reader(old).unwrap();
        assert_eq!((kept.pid, Record::load(dir.path()).unwrap().unwrap().pid), (1, 2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// The bytes that version 1 wrote.
    #[test]
    fn reads_version_1() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), r#"{"version":1,"pid":7,"start_ticks":9,"cgroup":"/a"}"#).unwrap();
        let record = Record::load(dir.path()).unwrap().unwrap();
        assert_eq!((record.pid, record.start_ticks, record.cgroup.as_str()), (7, 9, "/a"));
        std::fs::write(dir.path().join(FILE), r#"{"version":2,"pid":7,"start_ticks":9,"cgroup":"/a"}"#).unwrap();
        assert!(Record::load(dir.path()).is_err());
    }
}
