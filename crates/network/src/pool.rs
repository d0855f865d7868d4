//! Things made in advance by a thread, because making them is slow: network namespaces and sandboxes.
//!
//! Bounded; what is taken is never put back. The thread makes the next one when nobody has taken any for a moment, so
//! that it does not compete with the start that just took one, or at once when the stock runs low. When making fails, it
//! waits for the next `take`, whose caller then meets the same error on its own and can report it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::NetworkError;

/// Longer than a start takes, shorter than a person does to ask for the next.
const QUIET: Duration = Duration::from_millis(30);

/// Far longer than making one takes.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) struct Pool<T> {
    stock: Arc<Stock<T>>,
    size: usize,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Stock<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    ready: VecDeque<T>,
    last_taken: Option<Instant>,
    /// The thread is at work on one.
    making: bool,
    stopped: bool,
    failed: bool,
}

impl<T: Send + 'static> Pool<T> {
    pub(crate) fn new(size: usize) -> Self {
        let state = State {
            ready: VecDeque::with_capacity(size),
            last_taken: None,
            making: false,
            stopped: false,
            failed: false,
        };
        let stock = Stock { state: Mutex::new(state), changed: Condvar::new() };
        Self { stock: Arc::new(stock), size, worker: Mutex::new(None) }
    }

    /// Starts the thread unless it runs or the pool has been stopped. `maker` gives what makes one.
    pub(crate) fn start<M: FnMut() -> Result<T, NetworkError> + Send + 'static>(
        &self,
        maker: impl FnOnce() -> Result<M, NetworkError>,
    ) -> Result<(), NetworkError> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_some() || self.stock.lock().stopped {
            return Ok(());
        }
        let make = maker()?;
        let stock = Arc::clone(&self.stock);
        let size = self.size;
        let thread = std::thread::Builder::new()
            .name("berth-net-pool".to_owned())
            .stack_size(256 << 10)
            .spawn(move || stock.refill(size, make))
            .map_err(|source| NetworkError::Thread { purpose: "prepares network namespaces", source })?;
        *worker = Some(thread);
        Ok(())
    }

    /// One that is ready, if any; never waits for one to be made.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.stock.lock();
        state.last_taken = Some(Instant::now());
        state.failed = false;
        let taken = state.ready.pop_front();
        drop(state);
        self.stock.changed.notify_all();
        taken
    }

    /// Waits until the one that is being made, if any, is ready or has failed.
    pub(crate) fn settle(&self) {
        let deadline = Instant::now() + SETTLE;
        let mut state = self.stock.lock();
        while state.making && !state.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.stock.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Drops those ready that `unwanted` names.
    pub(crate) fn discard(&self, mut unwanted: impl FnMut(&T) -> bool) {
        let mut state = self.stock.lock();
        let (dropped, kept) = std::mem::take(&mut state.ready).into_iter().partition(|item| unwanted(item));
        state.ready = kept;
        drop(state);
        let dropped: VecDeque<T> = dropped;
        drop(dropped);
    }

    pub(crate) fn len(&self) -> usize {
        self.stock.lock().ready.len()
    }

    /// Ends the thread and drops what is ready; nothing is made afterwards.
    pub(crate) fn stop(&self) {
        let mut state = self.stock.lock();
        state.stopped = true;
        let unused = std::mem::take(&mut state.ready);
        drop(state);
        self.stock.changed.notify_all();
        drop(unused);
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            // A panic of the thread has been reported by its own hook; there is nothing left to do about it here.
            drop(worker.join());
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let mut state = self.stock.lock();
        state.stopped = true;
        let unused = std::mem::take(&mut state.ready);
        drop(state);
        self.stock.changed.notify_all();
        drop(unused);
        if let Some(worker) = self.worker.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop(worker.join());
        }
    }
}

impl<T> Stock<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refill(&self, size: usize, mut make: impl FnMut() -> Result<T, NetworkError>) {
        while self.wait_for_need(size) {
            let made = make();
            let mut state = self.lock();
            state.making = false;
            let unwanted = match made {
                Ok(item) if state.stopped => Some(item),
                Ok(item) => {
                    state.ready.push_back(item);
                    None
                }
                Err(_) => {
                    state.failed = true;
                    None
                }
            };
            drop(state);
            self.changed.notify_all();
            // Not under the lock: what an item does when it is dropped is not ours to know.
            drop(unwanted);
        }
    }

    /// `false`: stop.
    fn wait_for_need(&self, size: usize) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return false;
            }
            let wanted = state.ready.len() < size && !state.failed;
            let low = state.ready.len() <= size / 4;
            let quiet_for = state.last_taken.map_or(QUIET, |taken| taken.elapsed());
            if wanted && (low || quiet_for >= QUIET) {
                state.making = true;
                return true;
            }
            state = if wanted {
                let (state, _) = self
                    .changed
                    .wait_timeout(state, QUIET.saturating_sub(quiet_for))
                    .unwrap_or_else(PoisonError::into_inner);
                state
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).field("ready", &self.stock.lock().ready.len()).finish()
    }
}
