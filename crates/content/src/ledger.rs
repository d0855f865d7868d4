//! What the blobs take, known without looking at them: a blob never changes, so its size is noted once, when it gets its name or the store is
//! opened. The directory is the truth; nothing of this is written down.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use berth_types::Digest;

/// A number of files and the bytes of their blocks on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub count: u64,
    pub bytes: u64,
}

impl Totals {
    fn add(&mut self, bytes: u64) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// One that went meanwhile does not count.
    pub(crate) fn add_file(&mut self, path: &Path) {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            self.add(blocks_bytes(&found));
        }
    }
}

fn blocks_bytes(found: &Metadata) -> u64 {
    found.blocks().saturating_mul(512)
}

#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    bytes_of: HashMap<Digest, u64>,
    bytes: u64,
}

impl Ledger {
    pub(crate) fn add(&self, digest: Digest, found: &Metadata) {
        let bytes = blocks_bytes(found);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entries.bytes_of.insert(digest, bytes).unwrap_or(0);
        entries.bytes = entries.bytes.saturating_sub(before).saturating_add(bytes);
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entries.bytes_of.remove(digest).unwrap_or(0);
        entries.bytes = entries.bytes.saturating_sub(before);
    }

    pub(crate) fn totals(&self) -> Totals {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Totals { count: entries.bytes_of.len() as u64, bytes: entries.bytes }
    }
}
