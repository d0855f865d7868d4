//! Waits with a deadline, for kernel states that cannot be polled.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

/// A point in time, and pauses that grow until it.
#[derive(Debug)]
pub(crate) struct Deadline {
    start: Instant,
    timeout: Duration,
    pause: Duration,
}

impl Deadline {
    const PAUSE_FIRST: Duration = Duration::from_micros(50);
    const PAUSE_MAX: Duration = Duration::from_millis(10);

    pub(crate) fn after(timeout: Duration) -> Self {
        Self { start: Instant::now(), timeout, pause: Self::PAUSE_FIRST }
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.timeout.saturating_sub(self.start.elapsed())
    }

    pub(crate) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets a moment pass, twice as long each time; `false` when there is no time left.
    pub(crate) fn pause(&mut self) -> bool {
        let remaining = self.remaining();
        if remaining.is_zero() {
            return false;
        }
        // v1 files cannot be polled (and rmdir's EBUSY has no event), so this waits for nothing in particular.
        let timeout = timespec(self.pause.min(remaining));
        if rustix::event::poll(&mut [], Some(&timeout)).is_ok() {
            self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
        }
        true
    }

    /// Starts the pauses over, after something moved.
    pub(crate) fn hurry(&mut self) {
        self.pause = Self::PAUSE_FIRST;
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
