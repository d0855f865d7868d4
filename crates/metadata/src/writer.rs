//! Who writes: of the callers that wait, one commits for all of them in one transaction, so that concurrent immediate writes share a flush and no
//! thread is woken for another's. A thread of its own brings the database file up to date behind them.
//!
//! Lock order: `turn`, then what waits or the slot of the store. After an I/O error (full disk) redb refuses further work; the database is then
//! opened again, so that full function returns with the space. On a full disk requests that delete something are tried again with the reserve.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::is_full;
use crate::reserve::Reserve;
use crate::store::{Counters, Store};
use crate::{Commits, Durability, MetadataError, Result, Table, Write};

/// How long a write may be in the journal only, or not flushed at all; and how often a missing reserve is tried again.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Longer than any read transaction.
const READERS_END_WITHIN: Duration = Duration::from_secs(1);

/// What readers and writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    file: PathBuf,
    counters: Arc<Counters>,
    /// `None` only when opening it again after an I/O error failed too.
    store: RwLock<Option<Arc<Store>>>,
    reserve: Reserve,
    /// Who holds it commits what waits.
    turn: Mutex<()>,
    waiting: Mutex<Waiting>,
    /// The first write after a flush, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: Vec<Request>,
    /// When the database file is to be brought up to date.
    flush_at: Option<Instant>,
    is_ending: bool,
}

type Outcome = std::result::Result<(), Arc<redb::Error>>;

#[derive(Debug)]
struct Request {
    writes: Vec<Write>,
    durability: Durability,
    outcome: Arc<OnceLock<Outcome>>,
}

impl Request {
    fn deletes(&self) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Delete { .. }))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn open(file: &Path) -> Result<Self> {
        let counters = Arc::<Counters>::default();
        let store = Store::open(file, Arc::clone(&counters))?;
        let flush_at = store.is_behind().then(|| Instant::now() + FLUSH_WITHIN);
        let reserve = Reserve::beside(file);
        reserve.fill();
        Ok(Self {
            file: file.to_owned(),
            counters,
            store: RwLock::new(Some(Arc::new(store))),
            reserve,
            turn: Mutex::default(),
            waiting: Mutex::new(Waiting { flush_at, ..Waiting::default() }),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn commits(&self) -> Commits {
        self.counters.commits()
    }

    pub(crate) fn store(&self) -> Result<Arc<Store>> {
        if let Some(store) = self.slot().as_ref() {
            return Ok(Arc::clone(store));
        }
        self.reopen()
    }

    pub(crate) fn read_error(&self, table: Table, source: redb::Error) -> MetadataError {
        MetadataError::Read { file: self.file.clone(), table, source: Arc::new(source) }
    }

    fn slot(&self) -> RwLockReadGuard<'_, Option<Arc<Store>>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file again. Readers that still hold the old handle are waited for: they are done in a moment.
    fn reopen(&self) -> Result<Arc<Store>> {
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = slot.as_ref() {
            return Ok(Arc::clone(store));
        }
        let deadline = Instant::now() + READERS_END_WITHIN;
        let store = loop {
            match Store::open(&self.file, Arc::clone(&self.counters)) {
                // Opening after a failure rewrites a little.
                Err(error) if error.is_full() && self.reserve.release() => {}
                Err(MetadataError::Busy { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                opened => break Arc::new(opened?),
            }
        };
        *slot = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Does something with the store, and opens it again before the next when it fails on the disk.
    fn attempt(&self, step: impl FnOnce(&Store) -> std::result::Result<(), redb::Error>) -> Outcome {
        let outcome = match self.store() {
            Ok(store) => step(&store),
            Err(_) => Err(redb::Error::PreviousIo),
        };
        if outcome.as_ref().is_err_and(needs_reopening) {
            *self.store.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        outcome.map_err(Arc::new)
    }

    /// Commits the requests together and answers them; on a full disk those that delete get a second chance.
    fn serve(&self, requests: Vec<Request>) {
        let outcome = self.commit(&requests);
        let is_full = matches!(&outcome, Err(error) if matches!(error.as_ref(), redb::Error::Io(e) if is_full(e)));
        let (again, done): (Vec<Request>, Vec<Request>) = requests.into_iter().partition(|r| is_full && r.deletes());
        answer(done, &outcome);
        if !again.is_empty() {
            self.reserve.release();
            let outcome = self.commit(&again);
            answer(again, &outcome);
        }
    }

    fn commit(&self, requests: &[Request]) -> Outcome {
        let is_immediate = requests.iter().any(|request| request.durability == Durability::Immediate);
        let durability = if is_immediate { Durability::Immediate } else { Durability::Eventual };
        let writes: Vec<&Write> = requests.iter().flat_map(|request| &request.writes).collect();
        self.attempt(|store| store.commit(&writes, durability))
    }

    /// The flush a second after the first write is this one's to ask for.
    fn take_waiting(&self) -> Vec<Request> {
        let mut waiting = locked(&self.waiting);
        if waiting.flush_at.is_none() {
            waiting.flush_at = Some(Instant::now() + FLUSH_WITHIN);
            self.changed.notify_one();
        }
        std::mem::take(&mut waiting.requests)
    }

    /// What the thread does until the end.
    fn keep_flushed(&self) {
        loop {
            let is_ending = self.wait_for_flush();
            let _turn = locked(&self.turn);
            self.reserve.fill();
            let has_failed = self.attempt(|store| if store.is_behind() { store.flush() } else { Ok(()) }).is_err();
            let mut waiting = locked(&self.waiting);
            // What is in the journal is safe there meanwhile.
            let is_due = has_failed || !self.reserve.is_there();
            waiting.flush_at = is_due.then(|| Instant::now() + FLUSH_WITHIN);
            if is_ending {
                return;
            }
        }
    }

    /// Returns whether it is the last.
    fn wait_for_flush(&self) -> bool {
        let mut waiting = locked(&self.waiting);
        loop {
            if waiting.is_ending {
                return true;
            }
            let now = Instant::now();
            waiting = match waiting.flush_at {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at <= now => return false,
                Some(at) => self.changed.wait_timeout(waiting, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

fn answer(requests: Vec<Request>, outcome: &Outcome) {
    for request in requests {
        // Set once, by who took it.
        drop(request.outcome.set(outcome.clone()));
    }
}

fn needs_reopening(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed)
}

/// Dropped: what was written is flushed to the database file, and the thread ends.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(file: &Path) -> Result<Self> {
        let shared = Arc::new(Shared::open(file)?);
        let for_thread = Arc::clone(&shared);
        let flusher = std::thread::Builder::new()
            .name("metadata".to_owned())
            .stack_size(256 << 10)
            .spawn(move || for_thread.keep_flushed())
            .map_err(|source| MetadataError::File {
                operation: "start the flusher of",
                file: shared.file.clone(),
                source,
            })?;
        Ok(Self { shared, flusher: Some(flusher) })
    }

    pub(crate) fn submit(&self, writes: Vec<Write>, durability: Durability) -> Result<()> {
        let shared = &self.shared;
        // A database lost to an I/O error is opened here, where the reason can be told to the caller.
        drop(shared.store()?);
        let outcome = Arc::new(OnceLock::new());
        locked(&shared.waiting).requests.push(Request { writes, durability, outcome: Arc::clone(&outcome) });
        {
            let _turn = locked(&shared.turn);
            // Whoever had the turn before may have taken it along.
            if outcome.get().is_none() {
                shared.serve(shared.take_waiting());
            }
        }
        let outcome = outcome.get().ok_or(MetadataError::Stopped)?.clone();
        outcome.map_err(|source| MetadataError::Write { file: shared.file.clone(), source })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        locked(&self.shared.waiting).is_ending = true;
        self.shared.changed.notify_one();
        if let Some(flusher) = self.flusher.take() {
            // A panic of it has left everything in the journal.
            drop(flusher.join());
        }
    }
}
