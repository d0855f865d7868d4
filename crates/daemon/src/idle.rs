//! Once the daemon has nothing to do, it gives back what its last work left behind: free heap, and program text that only starting or
//! rare requests executed.
//!
//! No timer runs in an idle daemon: the runtime counts how often its thread goes to sleep, and only a daemon that did something since
//! the last time wakes once more for this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Quiet for this long is idle.
const QUIET: Duration = Duration::from_secs(1);
/// So often the thread sleeps and wakes for the watch itself.
const OWN_PARKS: u32 = 8;

/// Counts the sleeps of the runtime's thread.
#[derive(Clone, Default)]
pub(crate) struct Activity {
    parks: Arc<AtomicU32>,
    is_at_work: Arc<Notify>,
}

impl Activity {
    /// To be called each time the runtime's thread is about to sleep.
    pub(crate) fn parked(&self) {
        if self.parks.fetch_add(1, Ordering::Relaxed) == OWN_PARKS {
            self.is_at_work.notify_one();
        }
    }

    /// Never ends.
    pub(crate) async fn watch(self) {
        loop {
            self.is_at_work.notified().await;
            let mut before = self.parks.load(Ordering::Relaxed);
            loop {
                tokio::time::sleep(QUIET).await;
                let now = self.parks.load(Ordering::Relaxed);
                if now.wrapping_sub(before) <= OWN_PARKS {
                    break;
                }
                before = now;
            }
            if let Err(error) = berth_sys::memory::return_idle() {
                tracing::debug!(%error, "idle memory is not given back");
            }
            self.parks.store(0, Ordering::Relaxed);
        }
    }
}
