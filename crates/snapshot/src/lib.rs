//! Snapshots: layer directories by chain id and writable layers by container, below one root:
//!
//! ```text
//! <root>/layers/<chain id hex>/fs     an unpacked layer, ready to be an overlay lower directory
//! <root>/pending/<random>/fs          a layer being unpacked; renamed into place when complete
//! <root>/containers/<id>/{fs,work}    the writable pair of a container
//! <root>/trash/                       renamed here first, deleted in the background
//! ```
//! SEAM (stub) used by `image`.

use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use berth_types::{ChainId, Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct SnapshotError;

impl Classify for SnapshotError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Unimplemented
    }
}

type Result<T> = std::result::Result<T, SnapshotError>;

/// All layers and writable pairs of one data root. Shared by threads; every method takes `&self`.
#[derive(Debug)]
pub struct SnapshotStore {
    _private: (),
}

impl SnapshotStore {
    /// Opens or makes the store. Half-done things stay until [`Self::sweep`].
    pub fn open(_root: &Path) -> Result<Self> {
        Err(SnapshotError)
    }

    /// Where the layer's files are (or would be): an overlay lower directory.
    pub fn layer_dir(&self, _chain_id: &ChainId) -> PathBuf {
        PathBuf::new()
    }
    pub fn has_layer(&self, _chain_id: &ChainId) -> bool {
        false
    }
    /// Chain ids of all complete layers.
    pub fn layers(&self) -> Result<Vec<ChainId>> {
        Err(SnapshotError)
    }
    /// The size given to [`PendingLayer::commit`]; `None` when there is no such layer.
    pub fn layer_size(&self, _chain_id: &ChainId) -> Result<Option<u64>> {
        Err(SnapshotError)
    }
    /// An empty directory to unpack a layer into. Dropped without `commit`: discarded.
    pub fn begin_layer(&self, _chain_id: &ChainId) -> Result<PendingLayer> {
        Err(SnapshotError)
    }
    /// Renames the layer to the trash. Not there: fine.
    pub fn remove_layer(&self, _chain_id: &ChainId) -> Result<()> {
        Err(SnapshotError)
    }

    /// Fresh upper and work directories for a container. `lowers` top to bottom. Durable only when not thrown away.
    pub fn prepare(&self, _container_id: &str, _lowers: Vec<PathBuf>, _is_throw_away: bool) -> Result<OverlayRootfs> {
        Err(SnapshotError)
    }
    /// What `prepare` returned for this container, again.
    pub fn rootfs(&self, _container_id: &str, _lowers: Vec<PathBuf>) -> Result<OverlayRootfs> {
        Err(SnapshotError)
    }
    /// Renames the writable pair to the trash. Not there: fine.
    pub fn discard(&self, _container_id: &str) -> Result<()> {
        Err(SnapshotError)
    }
    /// Container ids that have a writable pair.
    pub fn prepared(&self) -> Result<Vec<String>> {
        Err(SnapshotError)
    }
    /// Bytes of regular files in the writable layer.
    pub fn writable_size(&self, _rootfs: &OverlayRootfs) -> Result<u64> {
        Err(SnapshotError)
    }
    /// Removes what a crash left: pending layers and the trash.
    pub fn sweep(&self) -> Result<()> {
        Err(SnapshotError)
    }
}

/// A layer directory that is not in the store yet.
#[derive(Debug)]
pub struct PendingLayer {
    _private: (),
}

impl PendingLayer {
    pub fn dir(&self) -> &Path {
        Path::new("")
    }
    /// Makes the files durable and the layer visible under its chain id. Somebody else was first: theirs stays, ours goes.
    pub fn commit(self, _size_bytes: u64) -> Result<()> {
        Err(SnapshotError)
    }
}
