//! The embedded transactional database (redb): one file, one writer, schema versioned. Records are JSON owned by their modules.
//! SEAM (stub).

use std::path::Path;

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
}

#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct MetadataError;

/// When a write must survive power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed before the call returns.
    Immediate,
    /// Visible at once, flushed with the next immediate write or within a second by the owner.
    Eventual,
}

#[derive(Debug, Clone)]
pub enum Write {
    Put { table: Table, key: String, value: Vec<u8> },
    Delete { table: Table, key: String },
}

#[derive(Debug)]
pub struct Metadata {
    _private: (),
}

impl Metadata {
    pub fn open(_file: &Path) -> Result<Self, MetadataError> {
        Err(MetadataError)
    }
    pub fn get(&self, _table: Table, _key: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        Err(MetadataError)
    }
    pub fn list(&self, _table: Table) -> Result<Vec<(String, Vec<u8>)>, MetadataError> {
        Err(MetadataError)
    }
    /// All or nothing; concurrent immediate writes share one flush.
    pub fn write(&self, _writes: Vec<Write>, _durability: Durability) -> Result<(), MetadataError> {
        Err(MetadataError)
    }
}
