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

    pub(crate) fn settle(&self, outcome: Result<PullOutcome>) {
        self.outcome.lock().get_or_insert(outcome);
        self.source.lock().take();
        self.done.send_replace(true);
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
        if let Some(source) = self.state.source.lock().take() {
            source.give_up();
        }
    }
}
