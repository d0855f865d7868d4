//! The one writer: a thread that takes every waiting request into one transaction, so that concurrent immediate writes share a flush.
//!
//! Lock order: none is held while another is taken. After an I/O error (full disk) redb refuses further work; the database is then opened
//! again, so that full function returns with the space.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::Database;

use crate::schema::{self, definition};
use crate::{Durability, MetadataError, Result, Table, Write};

/// How long an eventual write may stay unflushed.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Requests waiting for the writer, and requests that share one transaction.
const QUEUE_LEN: usize = 256;

/// What readers and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    file: PathBuf,
    /// `None` only when opening it again after an I/O error failed too.
    database: RwLock<Option<Arc<Database>>>,
}

impl Shared {
    pub(crate) fn new(file: &Path, database: Database) -> Self {
        Self { file: file.to_owned(), database: RwLock::new(Some(Arc::new(database))) }
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

    /// Closes and opens the file. A reader that still holds the old handle makes it `Busy`; the next request tries again.
    fn reopen(&self) -> Result<Arc<Database>> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = slot.as_ref() {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(schema::open(&self.file)?);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    fn forget(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

struct Request {
    writes: Vec<Write>,
    durability: Durability,
    reply: SyncSender<std::result::Result<(), Arc<redb::Error>>>,
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
        let first = match flush_at {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let batch = match first {
            Ok(first) => gather(first, requests),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) if flush_at.is_none() => return,
            Err(RecvTimeoutError::Disconnected) => {
                drop(commit(shared, &[], Durability::Immediate));
                return;
            }
        };
        let is_eventual = !batch.is_empty() && batch.iter().all(|r| r.durability == Durability::Eventual);
        let durability = if is_eventual { Durability::Eventual } else { Durability::Immediate };
        let outcome = commit(shared, &batch, durability).map_err(Arc::new);
        if outcome.as_ref().is_err_and(|error| needs_reopening(error)) {
            shared.forget();
        }
        flush_at = match (durability, &outcome) {
            (Durability::Eventual, Ok(())) => flush_at.or_else(|| Some(Instant::now() + FLUSH_WITHIN)),
            (Durability::Eventual, Err(_)) => flush_at,
            (Durability::Immediate, _) => None,
        };
        for request in batch {
            // Somebody who stopped waiting needs no answer.
            drop(request.reply.send(outcome.clone()));
        }
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
    Ok(())
}
