//! What the store takes on the disk, by owner, from the ledgers of content and snapshots: nothing that cannot change is looked at.

use berth_content::Totals;
use berth_metadata::Table;
use berth_snapshot::{Place, SnapshotRecord, WalkCounts};

use crate::Result;
use crate::store::ImageStore;

/// Bytes are those of blocks, as `du` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUse {
    pub layers: Totals,
    pub blobs: Totals,
    /// Blobs on their way, interrupted pulls included.
    pub unfinished: Totals,
    /// Moved away by fsck.
    pub damaged: Totals,
    /// Of clients of the containerd API: what is no layer. Those that can still change are walked.
    pub snapshots: Totals,
}

impl ImageStore {
    /// # Errors
    /// When a directory of a few files, or the records of snapshots, cannot be read.
    pub fn disk_use(&self) -> Result<StoreUse> {
        let layers = self.snapshots.layer_sizes();
        let (unfinished, damaged) = self.content.unfinished_and_damaged()?;
        Ok(StoreUse {
            layers: Totals {
                count: layers.len() as u64,
                bytes: layers.iter().fold(0, |sum, (_, size)| sum.saturating_add(size.bytes())),
            },
            blobs: self.content.totals(),
            unfinished,
            damaged,
            snapshots: self.own_snapshots()?,
        })
    }

    fn own_snapshots(&self) -> Result<Totals> {
        let mut own = Totals::default();
        for (key, bytes) in self.metadata.list(Table::Snapshots)? {
            // One whose record is damaged is fsck's to tell.
            let Ok(record) = SnapshotRecord::parse(&key, &bytes) else { continue };
            let Place::Own(number) = record.place else { continue };
            // Removed meanwhile: it holds nothing.
            let walk = || self.snapshots.home_tree(number).map(|tree| tree.disk_bytes).unwrap_or(0);
            own.count += 1;
            own.bytes = own.bytes.saturating_add(record.committed_bytes().unwrap_or_else(walk));
        }
        Ok(own)
    }

    /// How many trees were walked to count what they hold, since the store was opened.
    pub fn walks(&self) -> WalkCounts {
        self.snapshots.walks()
    }
}
