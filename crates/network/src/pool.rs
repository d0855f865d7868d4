//! Things made in advance by a thread, because making them is slow: network namespaces and sandboxes.
//!
//! Bounded; what is taken is never put back. The thread makes the next one when nobody has taken any for a moment, so
//! that it does not compete with the start that just took one, or at once when the stock runs low. When making fails, it
//! tries again later, ever more rarely, and at once after a `take`: what was in the way (the ports of a bridge and the
//! addresses that dead sandboxes still have, a limit of namespaces) goes away without anybody telling. Nobody is told
//! either: a caller that finds nothing ready makes its own, meets the same error, and can report it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::NetworkError;

/// Longer than a start takes, shorter than a person does to ask for the next.
const QUIET: Duration = Duration::from_millis(30);

/// After the first failure; each further one doubles it.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// A host that can never make one is asked this often.
const RETRY_MAX: Duration = Duration::from_secs(10);

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
    /// In a row.
    failures: u32,
    /// Not before; of the last failure.
    retry_at: Option<Instant>,
}

impl<T: Send + 'static> Pool<T> {
    pub(crate) fn new(size: usize) -> Self {
        let state = State {
            ready: VecDeque::with_capacity(size),
            last_taken: None,
            making: false,
            stopped: false,
            failures: 0,
            retry_at: None,
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
        state.retry_at = None;
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
                    state.failures = 0;
                    state.retry_at = None;
                    None
                }
                Err(_) => {
                    let doubled = RETRY_FIRST.saturating_mul(1 << state.failures.min(16));
                    state.retry_at = Some(Instant::now() + doubled.min(RETRY_MAX));
                    state.failures = state.failures.saturating_add(1);
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
            let pause = (state.ready.len() < size).then(|| state.pause(size));
            state = match pause {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    state.making = true;
                    return true;
                }
                Some(pause) => self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl<T> State<T> {
    /// Until the next one may be made.
    fn pause(&self, size: usize) -> Duration {
        let is_low = self.ready.len() <= size / 4;
        let quiet_for = self.last_taken.map_or(QUIET, |taken| taken.elapsed());
        let until_quiet = if is_low { Duration::ZERO } else { QUIET.saturating_sub(quiet_for) };
        let until_retry = self.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        until_quiet.max(until_retry)
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).field("ready", &self.stock.lock().ready.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::io::Errno;

    use super::*;

    /// A pool of two whose maker fails the first `failures` times; and how often it was asked.
    fn pool(failures: usize) -> (Pool<usize>, Arc<AtomicUsize>) {
        let pool = Pool::new(2);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        pool.start(|| {
            Ok(move || {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let refused = NetworkError::Namespace { action: "make a network namespace", source: Errno::NOSPC };
                if number < failures { Err(refused) } else { Ok(number) }
            })
        })
        .unwrap();
        (pool, asked)
    }

    fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn fills_itself_after_failures_though_nobody_takes() {
        let (pool, asked) = pool(3);
        wait_for("the pool is full", || pool.len() == 2);
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        assert_eq!((pool.take(), pool.take()), (Some(3), Some(4)));
    }

    #[test]
    fn ends_while_it_waits_to_try_again() {
        let (pool, asked) = pool(usize::MAX);
        wait_for("it has failed", || asked.load(Ordering::Relaxed) >= 2);
        pool.stop();
        assert_eq!((pool.len(), pool.take()), (0, None));
    }
}
