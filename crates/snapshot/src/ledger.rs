//! What the layers take, known without looking at their files: noted once when a layer is made, kept in memory from the opening on.
//!
//! A committed layer never changes, so nothing here is ever measured twice. [`LayerSize::size_bytes`] comes with the commit;
//! [`LayerSize::disk_bytes`] is measured by the background work after the layer is on the disk (only then file systems know which blocks it
//! takes) and is kept in the mark `settled`. The directory is the truth: a crash at any time costs no more than one measurement.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use berth_rootfs::OverlayRootfs;
use berth_types::ChainId;

use crate::layer::{LayerRecord, SETTLED_FILE};
use crate::{Result, SnapshotError, SnapshotStore, TreeSize};

/// Of one layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerSize {
    /// As given to the commit.
    pub size_bytes: u64,
    /// Blocks it takes on the disk; nothing before they were counted, and for drivers whose layers share blocks.
    pub disk_bytes: Option<u64>,
}

impl LayerSize {
    /// The best that is known.
    pub fn bytes(&self) -> u64 {
        self.disk_bytes.unwrap_or(self.size_bytes)
    }
}

/// How many trees were walked to count what they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalkCounts {
    pub layers: u64,
    pub writable: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    layers: Mutex<BTreeMap<ChainId, LayerSize>>,
    layer_walks: AtomicU64,
    writable_walks: AtomicU64,
}

impl Ledger {
    pub(crate) fn add(&self, chain_id: ChainId, size: LayerSize) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(chain_id, size);
    }

    pub(crate) fn remove(&self, chain_id: &ChainId) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).remove(chain_id);
    }

    pub(crate) fn get(&self, chain_id: &ChainId) -> Option<LayerSize> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(chain_id).copied()
    }

    /// Removed meanwhile: stays so.
    fn note_disk_bytes(&self, chain_id: &ChainId, bytes: u64) {
        if let Some(size) = self.layers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(chain_id) {
            size.disk_bytes = Some(bytes);
        }
    }
}

impl SnapshotStore {
    /// Every layer and what it takes; no file is looked at.
    pub fn layer_sizes(&self) -> Vec<(ChainId, LayerSize)> {
        let layers = self.ledger.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|(chain_id, size)| (*chain_id, *size)).collect()
    }

    /// Since the opening.
    pub fn walks(&self) -> WalkCounts {
        WalkCounts {
            layers: self.ledger.layer_walks.load(Ordering::Relaxed),
            writable: self.ledger.writable_walks.load(Ordering::Relaxed),
        }
    }

    /// What a writable layer holds now: a walk.
    ///
    /// # Errors
    /// What the kernel says; files that disappear meanwhile are fine.
    pub fn writable_tree(&self, rootfs: &OverlayRootfs) -> Result<TreeSize> {
        self.ledger.writable_walks.fetch_add(1, Ordering::Relaxed);
        self.driver.writable_tree(rootfs)
    }

    /// Marks a layer as being on the disk, with what it takes there.
    pub(crate) fn mark_settled(&self, chain_id: &ChainId) -> Result<()> {
        let home = self.layer_home(chain_id);
        self.ledger.layer_walks.fetch_add(1, Ordering::Relaxed);
        // One that cannot be walked is told by who uses it; here it only keeps its first figure.
        let disk_bytes = self.driver.layer_disk_bytes(&home).ok().flatten();
        let mark = home.join(SETTLED_FILE);
        let text = disk_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        match fs::write(&mark, text) {
            Ok(()) => {}
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SnapshotError::io("write", &mark, source)),
        }
        if let Some(bytes) = disk_bytes {
            self.ledger.note_disk_bytes(chain_id, bytes);
        }
        Ok(())
    }
}

/// What a settled layer's files say about its size; nothing noted: an older version settled it, or the driver cannot tell.
pub(crate) fn noted(home: &Path, record: &LayerRecord) -> LayerSize {
    let disk_bytes = fs::read_to_string(home.join(SETTLED_FILE)).ok().and_then(|text| text.trim().parse().ok());
    LayerSize { size_bytes: record.size_bytes, disk_bytes }
}
