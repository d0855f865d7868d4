//! The background thread of a store: flushes new layers and empties the trash, so that nobody waits for either.

use std::sync::Arc;
use std::thread::JoinHandle;

use berth_content::ContentStore;
use berth_snapshot::SnapshotStore;

use crate::{ImageError, Result};

/// Dropped: the thread ends after the piece of work it is at; what is left is done after the next opening.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    snapshots: Arc<SnapshotStore>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    pub(crate) fn start(snapshots: Arc<SnapshotStore>, content: Arc<ContentStore>) -> Result<Self> {
        let for_thread = Arc::clone(&snapshots);
        let thread = std::thread::Builder::new()
            .name("housekeeping".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let failed = |error: &(dyn std::error::Error + 'static)| {
                    tracing::warn!(error = berth_types::report(error), "housekeeping failed, will be tried again");
                };
                let empty = || content.empty_trash().unwrap_or_else(|error| failed(&error));
                for_thread.work(empty, |error| failed(&error));
            })
            .map_err(|source| ImageError::Io {
                operation: "start",
                object: "the housekeeping thread".to_owned(),
                source,
            })?;
        Ok(Self { snapshots, thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.snapshots.trash().stop();
        if let Some(thread) = self.thread.take() {
            // It was background work; a panic in it has nobody to go to.
            drop(thread.join());
        }
    }
}
