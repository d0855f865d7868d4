//! The embedded transactional database of a data root: one redb file with a journal beside it, one writer at a time, schema versioned.
//!
//! Records are opaque bytes here (JSON owned by the modules that write them). What this is not: a cache, a query engine, or a place for
//! anything that belongs to throw-away containers.
//!
//! Invariants: a write that returned survives `kill -9`, with [`Durability::Immediate`] also power loss; a write is all or nothing; they are
//! lost in no other order than from the last backwards; a file that
//! is damaged or from a newer version is an error that names the file, never a panic and never an empty database; on a full disk deletions
//! still work.

mod error;
mod journal;
mod payload;
mod reserve;
mod schema;
mod store;
mod writer;

use std::path::Path;

pub use error::MetadataError;
use redb::{ReadableDatabase as _, ReadableTable as _};
use schema::definition;
use writer::Writer;

type Result<T> = std::result::Result<T, MetadataError>;

/// Tables; a name is a promise to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// container id -> record of `engine`
    Containers,
    /// image id (config digest) -> record of `image`
    Images,
    /// full reference -> image id
    Tags,
    /// small facts of the daemon (id, schema)
    Facts,
    /// tenant -> its labels. Tenants are the namespaces of the containerd API; keys of the tables below begin with one and a slash.
    Namespaces,
    /// tenant/digest -> labels and times of a blob
    Blobs,
    /// tenant/lease id -> lease with its resources
    Leases,
    /// tenant/key -> snapshot of crate `snapshot`
    Snapshots,
    /// tenant/name -> image of the containerd API: target descriptor and labels
    Names,
    /// tenant/kind/id -> other objects of the containerd API (containers, sandboxes)
    Objects,
}

/// When a write must survive power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed before the call returns.
    Immediate,
    /// Survives the end of the process; flushed to the disk with the next immediate write, within a second, or when the database is dropped.
    Eventual,
}

#[derive(Debug, Clone)]
pub enum Write {
    Put { table: Table, key: String, value: Vec<u8> },
    Delete { table: Table, key: String },
}

/// Transactions since the database was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commits {
    /// Flushed to the disk before they returned.
    pub immediate: u64,
    pub eventual: u64,
    /// Times the database file was brought up to date with its journal.
    pub flushes: u64,
}

/// Longest key and largest value that are taken.
pub const KEY_BYTES_MAX: usize = 4096;
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// An open database. Readers never wait for writers.
#[derive(Debug)]
pub struct Metadata {
    writer: Writer,
}

impl Metadata {
    /// Opens the file, or makes it when it does not exist, and checks every page of it.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, `DataLoss` when it is damaged, `FailedPrecondition` when a newer version wrote it.
    pub fn open(file: &Path) -> Result<Self> {
        Ok(Self { writer: Writer::start(file)? })
    }

    pub fn commits(&self) -> Commits {
        self.writer.shared.commits()
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>> {
        let failed = |source: redb::Error| self.writer.shared.read_error(table, source);
        let transaction = self.writer.shared.store()?.database.begin_read().map_err(|e| failed(e.into()))?;
        let opened = transaction.open_table(definition(table)).map_err(|e| failed(e.into()))?;
        let found = opened.get(key).map_err(|e| failed(e.into()))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// All records of a table, sorted by key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>> {
        let failed = |source: redb::Error| self.writer.shared.read_error(table, source);
        let transaction = self.writer.shared.store()?.database.begin_read().map_err(|e| failed(e.into()))?;
        let opened = transaction.open_table(definition(table)).map_err(|e| failed(e.into()))?;
        let mut records = Vec::new();
        for entry in opened.iter().map_err(|e| failed(e.into()))? {
            let (key, value) = entry.map_err(|e| failed(e.into()))?;
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(records)
    }

    /// The records whose key begins so, sorted by key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list_below(&self, table: Table, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let failed = |source: redb::Error| self.writer.shared.read_error(table, source);
        let transaction = self.writer.shared.store()?.database.begin_read().map_err(|e| failed(e.into()))?;
        let opened = transaction.open_table(definition(table)).map_err(|e| failed(e.into()))?;
        let mut records = Vec::new();
        for entry in opened.range(prefix..).map_err(|e| failed(e.into()))? {
            let (key, value) = entry.map_err(|e| failed(e.into()))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(records)
    }

    /// All or nothing; concurrent immediate writes share one flush. Within one call the last write to a key wins.
    ///
    /// # Errors
    /// `InvalidArgument` for a key or value over its limit, `ResourceExhausted` when the disk is full; then nothing of it was written.
    pub fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<()> {
        for write in &writes {
            check_size(write)?;
        }
        self.writer.submit(writes, durability)
    }
}

fn check_size(write: &Write) -> Result<()> {
    let (table, key, value_len) = match write {
        Write::Put { table, key, value } => (*table, key, value.len()),
        Write::Delete { table, key } => (*table, key, 0),
    };
    if key.len() > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
        let shown = key.chars().take(100).collect();
        return Err(MetadataError::TooLarge { table, key: shown, bytes: key.len().max(value_len) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
