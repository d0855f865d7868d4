//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Polls until `ready` gives a value; panics after 20 s naming what never came.
#[expect(clippy::disallowed_methods, reason = "this is the one place that polls, with a deadline")]
pub fn wait_until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
