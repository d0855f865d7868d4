//! What the endpoints share: the engine, facts of this face, and attaches that are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::api::Engine;
use berth_types::ContainerId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Facts of the daemon that only the face reports.
#[derive(Debug, Clone)]
pub struct FaceOptions {
    pub version: String,
    pub git_commit: String,
    pub build_time: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: Arc<FaceOptions>,
    pending: Arc<PendingAttaches>,
}

impl Face {
    pub(crate) fn new(engine: Arc<Engine>, options: FaceOptions) -> Self {
        Self { engine, options: Arc::new(options), pending: Arc::default() }
    }

    pub(crate) fn pending(&self) -> &Arc<PendingAttaches> {
        &self.pending
    }
}

/// Attaches answered with 101 whose stream is not yet with the shim. A client that got its 101 may ask for the start at
/// once on another connection; the start waits for these, so that no output is missed.
#[derive(Debug, Default)]
pub(crate) struct PendingAttaches {
    counts: Mutex<HashMap<ContainerId, watch::Sender<usize>>>,
}

/// One attach under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct PendingAttach {
    all: Arc<PendingAttaches>,
    id: ContainerId,
}

/// How long a start waits for attaches under way before it goes on without them.
const PENDING_DEADLINE: Duration = Duration::from_secs(5);

impl PendingAttaches {
    pub(crate) fn begin(self: &Arc<Self>, id: &ContainerId) -> PendingAttach {
        self.counts.lock().entry(id.clone()).or_insert_with(|| watch::channel(0).0).send_modify(|count| *count += 1);
        PendingAttach { all: Arc::clone(self), id: id.clone() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.lock().is_empty()
    }

    pub(crate) async fn settled(&self, id: &ContainerId) {
        let Some(mut count) = self.counts.lock().get(id).map(watch::Sender::subscribe) else { return };
        let wait = count.wait_for(|count| *count == 0);
        if tokio::time::timeout(PENDING_DEADLINE, wait).await.is_err() {
            tracing::warn!(container_id = %id, "an attach is still under way; starting without it");
        }
    }
}

impl Drop for PendingAttach {
    fn drop(&mut self) {
        let mut counts = self.all.counts.lock();
        let Some(sender) = counts.get(&self.id) else { return };
        sender.send_modify(|count| *count = count.saturating_sub(1));
        if *sender.borrow() == 0 {
            counts.remove(&self.id);
        }
    }
}
