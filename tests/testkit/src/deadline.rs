//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Polls until `ready` gives a value; panics after 60 s naming what never came.
#[expect(clippy::disallowed_methods, reason = "this is the one place that polls, with a deadline")]
pub fn wait_until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
