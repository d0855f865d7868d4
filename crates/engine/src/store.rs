//! Records on disk: durable ones in the metadata database, those of throw-away (`--rm`) containers as one file each below the state root.
//!
//! Invariant: writing a throw-away record flushes nothing; creating and removing a durable one flushes once, changes of its state do not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_metadata::{Durability, Metadata, Table, Write as DbWrite};
use berth_types::ContainerId;

use crate::error::{EngineError, Result};
use crate::record::Record;

#[derive(Debug, Clone)]
pub(crate) struct RecordStore {
    metadata: Arc<Metadata>,
    throw_away_dir: PathBuf,
}

impl RecordStore {
    pub(crate) fn new(metadata: Arc<Metadata>, throw_away_dir: PathBuf) -> Self {
        Self { metadata, throw_away_dir }
    }

    fn file(&self, id: &ContainerId) -> PathBuf {
        self.throw_away_dir.join(format!("{id}.json"))
    }

    /// Keeps a record. `is_durable`: it must survive power loss (ignored for throw-away containers). May block on the disk.
    pub(crate) fn put(&self, record: &Record, is_durable: bool) -> Result<()> {
        let value = serde_json::to_vec(record)
            .map_err(|error| EngineError::internal(format!("cannot encode the record of {}: {error}", record.id)))?;
        if record.host.auto_remove {
            return replace_file(&self.file(&record.id), &value);
        }
        let durability = if is_durable { Durability::Immediate } else { Durability::Eventual };
        let put = DbWrite::Put { table: Table::Containers, key: record.id.to_string(), value };
        Ok(self.metadata.write(vec![put], durability)?)
    }

    /// Forgets a record; may block on the disk.
    pub(crate) fn delete(&self, id: &ContainerId, is_throw_away: bool) -> Result<()> {
        if is_throw_away {
            let file = self.file(id);
            return match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(EngineError::io("remove record", &file, &error))
                }
                _ => Ok(()),
            };
        }
        let delete = DbWrite::Delete { table: Table::Containers, key: id.to_string() };
        Ok(self.metadata.write(vec![delete], Durability::Immediate)?)
    }

    /// All records, and warnings about those that cannot be read: one damaged record does not stop the daemon.
    pub(crate) fn load(&self) -> Result<(Vec<Record>, Vec<String>)> {
        let mut records = Vec::new();
        let mut warnings = Vec::new();
        let mut take = |name: &str, value: &[u8]| match serde_json::from_slice::<Record>(value) {
            Ok(record) => records.push(record),
            Err(error) => warnings.push(format!("record of container {name} is unreadable: {error}")),
        };
        for (key, value) in self.metadata.list(Table::Containers)? {
            take(&key, &value);
        }
        let dir = &self.throw_away_dir;
        let entries = std::fs::read_dir(dir).map_err(|error| EngineError::io("list records in", dir, &error))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "json") {
                let value = std::fs::read(&path).map_err(|error| EngineError::io("read record", &path, &error))?;
                take(&path.display().to_string(), &value);
            } else {
                // A temporary file of a write that a crash cut short; the record before it is intact.
                std::fs::remove_file(&path).map_err(|error| EngineError::io("remove", &path, &error))?;
            }
        }
        Ok((records, warnings))
    }
}

/// Temporary file and rename: a reader after a crash of this process sees the old or the new record. Not flushed.
fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| EngineError::io("write record", path, &error))
}
