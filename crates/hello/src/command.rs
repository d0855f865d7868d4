//! The sub-commands that stand in for a shell's.

use std::io::{self, Write};
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::Timespec;

/// Copies standard input, as it comes.
pub(crate) fn cat(out: &mut impl Write) -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), out)?;
    out.flush()
}

/// `None`: not a time. `infinity` is as long as the kernel can count.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::from_secs(i64::MAX.unsigned_abs()));
    }
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

pub(crate) fn sleep(wait: Duration) -> io::Result<()> {
    let mut left =
        Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() };
    loop {
        match nanosleep(&left) {
            NanosleepRelativeResult::Ok => return Ok(()),
            NanosleepRelativeResult::Interrupted(rest) => left = rest,
            NanosleepRelativeResult::Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(duration("10"), Some(Duration::from_secs(10)));
        assert!(duration("infinity").is_some());
        for text in ["", "-1", "NaN", "1s", "inf"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
