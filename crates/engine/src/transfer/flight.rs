//! One pull under way, however many clients asked for it. It goes on while one of them waits.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Board, FetchSource};
use crate::api::PullOutcome;
use crate::error::Result;

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) board: Arc<Board>,
    state: Arc<FlightState>,
    job: AbortHandle,
}

/// What the job itself holds: it must not keep the flight alive.
#[derive(Debug)]
pub(crate) struct FlightState {
    outcome: Mutex<Option<Result<PullOutcome>>>,
    done: watch::Sender<bool>,
    source: Mutex<Option<FetchSource>>,
    is_given_up: std::sync::atomic::AtomicBool,
}

impl FlightState {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            outcome: Mutex::default(),
            done: watch::channel(false).0,
            source: Mutex::default(),
            is_given_up: false.into(),
        })
    }

    /// Where the layers come from, so that it can be cut off when nobody waits any more.
    pub(crate) fn hold(&self, source: &FetchSource) {
        *self.source.lock() = Some(source.clone());
        if self.is_given_up.load(std::sync::atomic::Ordering::SeqCst) {
            source.give_up();
        }
    }

    /// The pull is over, whoever says so first: what it fetches comes for nobody any more.
    pub(crate) fn settle(&self, outcome: Result<PullOutcome>) {
        self.outcome.lock().get_or_insert(outcome);
        self.give_up_source();
        self.done.send_replace(true);
    }

    /// The thread that unpacks holds the source as well: to drop ours alone would not end the fetches.
    fn give_up_source(&self) {
        let source = self.source.lock().take();
        if let Some(source) = source {
            source.give_up();
        }
    }
}

impl Flight {
    pub(crate) fn new(board: Arc<Board>, state: Arc<FlightState>, job: AbortHandle) -> Self {
        Self { board, state, job }
    }

    pub(crate) fn done(&self) -> watch::Receiver<bool> {
        self.state.done.subscribe()
    }

    pub(crate) fn is_done(&self) -> bool {
        *self.state.done.borrow()
    }

    pub(crate) fn outcome(&self) -> Option<Result<PullOutcome>> {
        self.state.outcome.lock().clone()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.state.is_given_up.store(true, std::sync::atomic::Ordering::SeqCst);
        self.job.abort();
        self.state.give_up_source();
    }
}

#[cfg(test)]
mod tests {
    use berth_content::ContentStore;
    use berth_registry::{Credentials, RegistryOptions};
    use berth_types::Digest;

    use super::*;
    use crate::error::EngineError;
    use crate::transfer::Transfers;

    /// The job that is aborted settles on a thread of its own, before or after the flight that aborts it looks at the source.
    #[tokio::test]
    async fn the_end_gives_up_the_source_whoever_is_first() {
        let root = tempfile::tempdir().unwrap();
        let content = Arc::new(ContentStore::open(root.path()).unwrap());
        let transfers = Transfers::new(RegistryOptions::default(), &content).unwrap();
        let session = transfers.session(&"127.0.0.1:1/a:1".parse().unwrap(), Credentials::Anonymous).unwrap();
        for (digit, is_settled_first) in [("a", true), ("b", false)] {
            let fetch = session.fetch(&transfers.partials, &Digest::from_hex(&digit.repeat(64)).unwrap(), 1).unwrap();
            let held = Arc::downgrade(&fetch);
            // The thread that unpacks has it too, until its reader ends.
            let source = FetchSource::new(vec![fetch]);
            let state = FlightState::new();
            state.hold(&source);
            let job = tokio::spawn(std::future::pending::<()>());
            let flight = Flight::new(Arc::new(Board::new()), Arc::clone(&state), job.abort_handle());
            if is_settled_first {
                state.settle(Err(EngineError::internal("the pull ended early")));
            }
            drop(flight);
            assert_eq!(held.strong_count(), 0, "settled first: {is_settled_first}");
            drop(source);
        }
    }
}
