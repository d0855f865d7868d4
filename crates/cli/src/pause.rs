//! A short wait for things that give no sign: a daemon's socket that is to appear, counters that only grow.

use std::time::Duration;

use rustix::event::{Timespec, poll};

/// Waits at most `time`; a signal may cut it short, which callers in a loop do not mind.
pub(crate) fn pause(time: Duration) {
    let timeout =
        Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(1), tv_nsec: i64::from(time.subsec_nanos()) };
    poll(&mut [], Some(&timeout)).unwrap_or_default();
}
