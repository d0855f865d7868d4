//! How long to wait before the next attempt, and when to give up.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::options::RegistryOptions;

/// Counts attempts that brought nothing.
#[derive(Debug)]
pub(crate) struct Patience {
    failures: u32,
    failures_max: u32,
    backoff: Duration,
    backoff_max: Duration,
}

impl Patience {
    pub(crate) fn new(options: &RegistryOptions) -> Self {
        Self {
            failures: 0,
            failures_max: options.attempts_max,
            backoff: options.backoff,
            backoff_max: options.backoff_max,
        }
    }

    /// Something useful came: start counting again.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; `false`: it was tried often enough.
    pub(crate) async fn wait(&mut self, asked: Option<Duration>) -> bool {
        self.failures += 1;
        if self.failures >= self.failures_max {
            return false;
        }
        let doubled = self.backoff.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = asked.unwrap_or(doubled).min(self.backoff_max);
        tokio::time::sleep(wait + jitter(self.backoff)).await;
        true
    }
}

/// So that clients which failed together do not come back together.
fn jitter(backoff: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    backoff.mul_f64(f64::from(now.subsec_nanos() % 1000) / 4000.0)
}

/// `Retry-After` in seconds; dates are not worth the parsing and count as none.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
