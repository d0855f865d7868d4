//! The kernel's log as the last witness of a kill for lack of memory.
//!
//! systemd removes an empty scope at once, often before we can read the count in it. The kernel names the group of each process it
//! kills, so a log that was opened when the scope was made tells afterwards. It limits such messages to ten in five seconds.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::{Errno, read};

/// `/dev/kmsg` from the moment it was opened on.
#[derive(Debug)]
pub(crate) struct KernelLog {
    records: OwnedFd,
    /// Found so far; a record is read once.
    kills: AtomicU64,
}

impl KernelLog {
    /// `None` where we may not read it; then there is no witness.
    pub(super) fn open() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let records = openat(CWD, "/dev/kmsg", flags, Mode::empty()).ok()?;
        seek(&records, SeekFrom::End(0)).ok()?;
        Some(Self { records, kills: AtomicU64::new(0) })
    }

    /// Kills in a group or below it since the log was opened.
    pub(crate) fn kills(&self, control_group: &str) -> u64 {
        /// One record is at most this long (kernel documentation, ABI/testing/dev-kmsg).
        const RECORD_MAX: usize = 8192;
        let mut record = [0; RECORD_MAX];
        loop {
            match read(&self.records, &mut record) {
                Ok(length) => {
                    if names(&String::from_utf8_lossy(&record[..length]), control_group) {
                        self.kills.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Records were overwritten before we came, or we were interrupted: on with the next.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => return self.kills.load(Ordering::Relaxed),
            }
        }
    }
}

/// Whether a record tells of a victim in the group: `oom-kill:constraint=…,task_memcg=/a/b.scope,task=dd,pid=7,uid=0`.
pub(super) fn names(record: &str, control_group: &str) -> bool {
    let Some((_, rest)) = record.split_once("task_memcg=") else { return false };
    let Some(rest) = rest.strip_prefix(control_group) else { return false };
    rest.starts_with([',', '/'])
}
