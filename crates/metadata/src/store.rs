//! A database that is open, with its journal: how transactions become durable.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, WriteTransaction};

use crate::error::Damage;
use crate::journal::{Journal, fresh_generation};
use crate::payload::{decode, encode};
use crate::schema::{self, GENERATION_KEY, JOURNAL, definition};
use crate::{Commits, Durability, MetadataError, Result, Write};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    immediate: AtomicU64,
    eventual: AtomicU64,
    flushes: AtomicU64,
}

impl Counters {
    pub(crate) fn commits(&self) -> Commits {
        Commits {
            immediate: self.immediate.load(Ordering::Relaxed),
            eventual: self.eventual.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) database: Database,
    counters: Arc<Counters>,
    /// Held by who commits.
    journal: Mutex<Journal>,
    /// The journal has records that the database file has not.
    is_behind: AtomicBool,
}

impl Store {
    /// Opens or makes the database, and applies what its journal has beyond it.
    pub(crate) fn open(file: &Path, counters: Arc<Counters>) -> Result<Self> {
        let database = schema::open(file)?;
        let generation = schema::generation(file, &database)?;
        let journal_file = file.with_extension("journal");
        let failed = |source| MetadataError::File { operation: "open the journal of", file: file.to_owned(), source };
        let (journal, payloads) = Journal::open(journal_file.clone(), generation).map_err(failed)?;
        let is_behind = AtomicBool::new(!payloads.is_empty());
        let mut writes = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let foreign = || MetadataError::Damaged { file: journal_file.clone(), source: Damage::Record(index) };
            writes.append(&mut decode(payload).ok_or_else(foreign)?);
        }
        let store = Self { database, counters, journal: Mutex::new(journal), is_behind };
        if !writes.is_empty() {
            store
                .replay(&writes.iter().collect::<Vec<_>>())
                .map_err(|source| MetadataError::Write { file: file.to_owned(), source: source.into() })?;
        }
        Ok(store)
    }

    /// Not flushed: on a full disk it can be read all the same.
    fn replay(&self, writes: &[&Write]) -> std::result::Result<(), redb::Error> {
        let transaction = self.begin(redb::Durability::None)?;
        apply(&transaction, writes)?;
        Ok(transaction.commit()?)
    }

    /// Something is in the journal only.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// All or nothing.
    pub(crate) fn commit(&self, writes: &[&Write], durability: Durability) -> std::result::Result<(), redb::Error> {
        let payload = encode(writes);
        let mut journal = self.journal();
        if !journal.can_hold(payload.len()) {
            self.flush_to_database(&mut journal, writes)?;
            self.counters.immediate.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if !journal.has_room(payload.len()) {
            self.flush_to_database(&mut journal, &[])?;
        }
        let transaction = self.begin(redb::Durability::None)?;
        apply(&transaction, writes)?;
        // In this order: what cannot be applied is never in the journal, and dropped, a transaction changes nothing.
        let before = journal.append(&payload, durability == Durability::Immediate)?;
        if let Err(error) = transaction.commit() {
            journal.take_back(before);
            return Err(error.into());
        }
        self.is_behind.store(true, Ordering::Relaxed);
        let counter = match durability {
            Durability::Immediate => &self.counters.immediate,
            Durability::Eventual => &self.counters.eventual,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Brings the database file up to date, so that the journal is empty.
    pub(crate) fn flush(&self) -> std::result::Result<(), redb::Error> {
        self.flush_to_database(&mut self.journal(), &[])
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// And the writes with it.
    fn flush_to_database(&self, journal: &mut Journal, writes: &[&Write]) -> std::result::Result<(), redb::Error> {
        let generation = fresh_generation()?;
        let transaction = self.begin(redb::Durability::Immediate)?;
        apply(&transaction, writes)?;
        transaction.open_table(JOURNAL)?.insert(GENERATION_KEY, &generation[..])?;
        transaction.commit()?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.is_behind.store(false, Ordering::Relaxed);
        journal.restart(generation);
        Ok(())
    }

    fn begin(&self, durability: redb::Durability) -> std::result::Result<WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        Ok(transaction)
    }
}

fn apply(transaction: &WriteTransaction, writes: &[&Write]) -> std::result::Result<(), redb::Error> {
    for write in writes {
        match write {
            Write::Put { table, key, value } => {
                transaction.open_table(definition(*table))?.insert(key.as_str(), value.as_slice())?;
            }
            Write::Delete { table, key } => {
                transaction.open_table(definition(*table))?.remove(key.as_str())?;
            }
        }
    }
    Ok(())
}
