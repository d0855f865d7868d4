//! The one writer: a thread that takes every waiting request into one transaction, so that concurrent immediate writes share a flush.
//!
//! Lock order: none is held while another is taken. After an I/O error (full disk) redb refuses further work; the database is then opened
//! again, so that full function returns with the space. On a full disk requests that delete something are tried again with the reserve.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::Database;

use crate::error::is_full;
use crate::reserve::Reserve;
use crate::schema::{self, definition};
use crate::{Commits, Durability, MetadataError, Result, Table, Write};

/// How long an eventual write may stay unflushed, and how often a missing reserve is tried again.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Longer than any read transaction.
const READERS_END_WITHIN: Duration = Duration::from_secs(1);
/// Requests waiting for the writer, and requests that share one transaction.
const QUEUE_LEN: usize = 256;

/// What readers and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    file: PathBuf,
    /// `None` only when opening it again after an I/O error failed too.
    database: RwLock<Option<Arc<Database>>>,
    reserve: Reserve,
    immediate_commits: AtomicU64,
    eventual_commits: AtomicU64,
}

impl Shared {
    pub(crate) fn new(file: &Path, database: Database) -> Self {
        let reserve = Reserve::beside(file);
        reserve.fill();
        Self {
            file: file.to_owned(),
            database: RwLock::new(Some(Arc::new(database))),
            reserve,
            immediate_commits: AtomicU64::new(0),
            eventual_commits: AtomicU64::new(0),
        }
    }

    pub(crate) fn commits(&self) -> Commits {
        Commits {
            immediate: self.immediate_commits.load(Ordering::Relaxed),
            eventual: self.eventual_commits.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn database(&self) -> Result<Arc<Database>> {
        if let Some(database) = self.slot().as_ref() {
            return Ok(Arc::clone(database));
        }
        self.reopen()
    }

    pub(crate) fn read_error(&self, table: Table, source: redb::Error) -> MetadataError {
        MetadataError::Read { file: self.file.clone(), table, source: Arc::new(source) }
    }

    fn slot(&self) -> RwLockReadGuard<'_, Option<Arc<Database>>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file again. Readers that still hold the old handle are waited for: they are done in a moment.
    fn reopen(&self) -> Result<Arc<Database>> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = slot.as_ref() {
            return Ok(Arc::clone(database));
        }
        let deadline = Instant::now() + READERS_END_WITHIN;
        let database = loop {
            match schema::open(&self.file) {
                // Opening after a failure rewrites a little.
                Err(error) if error.is_full() && self.reserve.release() => {}
                Err(MetadataError::Busy { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                opened => break Arc::new(opened?),
            }
        };
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    fn forget(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

type Outcome = std::result::Result<(), Arc<redb::Error>>;

struct Request {
    writes: Vec<Write>,
    durability: Durability,
    reply: SyncSender<Outcome>,
}

impl Request {
    fn deletes(&self) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Delete { .. }))
    }
}

/// Handle of the writer thread; dropped: what is queued is written, eventual writes are flushed, and the thread ends.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("writes", &self.writes.len()).field("durability", &self.durability).finish()
    }
}

impl Writer {
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self> {
        let (queue, requests) = sync_channel(QUEUE_LEN);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("metadata".to_owned())
            .stack_size(256 << 10)
            .spawn(move || serve(&for_thread, &requests))
            .map_err(|source| MetadataError::File {
                operation: "start the writer of",
                file: shared.file.clone(),
                source,
            })?;
        Ok(Self { shared, queue: Some(queue), thread: Some(thread) })
    }

    pub(crate) fn submit(&self, writes: Vec<Write>, durability: Durability) -> Result<()> {
        // A database lost to an I/O error is opened here, where the reason can be told to the caller.
        drop(self.shared.database()?);
        let (reply, answer) = sync_channel(1);
        let queue = self.queue.as_ref().ok_or(MetadataError::Stopped)?;
        queue.send(Request { writes, durability, reply }).map_err(|_| MetadataError::Stopped)?;
        let outcome = answer.recv().map_err(|_| MetadataError::Stopped)?;
        outcome.map_err(|source| MetadataError::Write { file: self.shared.file.clone(), source })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has answered its callers already (their reply channel closed).
            drop(thread.join());
        }
    }
}

fn serve(shared: &Shared, requests: &Receiver<Request>) {
    let mut flush_at: Option<Instant> = None;
    loop {
        let retry_at = || Instant::now() + FLUSH_WITHIN;
        let wake_at = flush_at.or_else(|| (!shared.reserve.is_there()).then(retry_at));
        let first = match wake_at {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        shared.reserve.fill();
        let batch = match first {
            Ok(first) => gather(first, requests),
            Err(RecvTimeoutError::Timeout) if flush_at.is_none() => continue,
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) if flush_at.is_none() => return,
            Err(RecvTimeoutError::Disconnected) => {
                drop(commit(shared, &[], Durability::Immediate));
                return;
            }
        };
        let is_eventual = !batch.is_empty() && batch.iter().all(|r| r.durability == Durability::Eventual);
        let durability = if is_eventual { Durability::Eventual } else { Durability::Immediate };
        let is_flushed = serve_batch(shared, batch, durability);
        flush_at = match (durability, is_flushed) {
            (Durability::Eventual, true) => flush_at.or_else(|| Some(Instant::now() + FLUSH_WITHIN)),
            (Durability::Eventual, false) => flush_at,
            (Durability::Immediate, _) => None,
        };
    }
}

/// Commits the requests together and answers them; on a full disk those that delete get a second chance. Returns whether all went well.
fn serve_batch(shared: &Shared, batch: Vec<Request>, durability: Durability) -> bool {
    let outcome = commit_or_forget(shared, &batch, durability);
    let is_full = matches!(&outcome, Err(error) if matches!(error.as_ref(), redb::Error::Io(e) if is_full(e)));
    let (again, done): (Vec<Request>, Vec<Request>) = batch.into_iter().partition(|r| is_full && r.deletes());
    answer(done, &outcome);
    if again.is_empty() {
        return outcome.is_ok();
    }
    shared.reserve.release();
    let outcome = commit_or_forget(shared, &again, durability);
    answer(again, &outcome);
    false
}

fn commit_or_forget(shared: &Shared, batch: &[Request], durability: Durability) -> Outcome {
    let outcome = commit(shared, batch, durability).map_err(Arc::new);
    if outcome.as_ref().is_err_and(|error| needs_reopening(error)) {
        shared.forget();
    }
    outcome
}

fn answer(requests: Vec<Request>, outcome: &Outcome) {
    for request in requests {
        // Somebody who stopped waiting needs no answer.
        drop(request.reply.send(outcome.clone()));
    }
}

fn gather(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let mut batch = vec![first];
    while batch.len() < QUEUE_LEN {
        match requests.try_recv() {
            Ok(next) => batch.push(next),
            Err(_) => break,
        }
    }
    batch
}

fn needs_reopening(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed)
}

fn commit(shared: &Shared, batch: &[Request], durability: Durability) -> std::result::Result<(), redb::Error> {
    let Ok(database) = shared.database() else { return Err(redb::Error::PreviousIo) };
    let mut transaction = database.begin_write()?;
    transaction.set_durability(match durability {
        Durability::Immediate => redb::Durability::Immediate,
        Durability::Eventual => redb::Durability::None,
    })?;
    for write in batch.iter().flat_map(|request| &request.writes) {
        match write {
            Write::Put { table, key, value } => {
                transaction.open_table(definition(*table))?.insert(key.as_str(), value.as_slice())?;
            }
            Write::Delete { table, key } => {
                transaction.open_table(definition(*table))?.remove(key.as_str())?;
            }
        }
    }
    transaction.commit()?;
    let counter = match durability {
        Durability::Immediate => &shared.immediate_commits,
        Durability::Eventual => &shared.eventual_commits,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
