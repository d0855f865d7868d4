//! Root file systems of containers: the layers of an image below a writable pair.

use std::path::PathBuf;
use std::sync::MutexGuard;

use berth_rootfs::OverlayRootfs;
use berth_types::Digest;

use crate::changes::{self, Change};
use crate::store::ImageStore;
use crate::unpack::{Packed, Task, Unpacker};
use crate::{Image, Layer, Result, compression, tree_diff};

impl ImageStore {
    /// Upper and work directories for a container, on top of an image's layers. Durable only if asked.
    ///
    /// # Errors
    /// When they cannot be made, or are there already.
    pub fn prepare(&self, container_id: &str, image: &Image, is_throw_away: bool) -> Result<OverlayRootfs> {
        self.ensure_layers(image)?;
        Ok(self.snapshots.prepare(container_id, lowers(image), is_throw_away)?)
    }

    /// The root file system of an existing container again (after a restart).
    ///
    /// # Errors
    /// `NotFound` when it was never prepared.
    pub fn rootfs(&self, container_id: &str, image: &Image) -> Result<OverlayRootfs> {
        self.ensure_layers(image)?;
        Ok(self.snapshots.rootfs(container_id, lowers(image))?)
    }

    /// Layers that a power failure cost (their files were not on the disk yet), or that fsck dropped, are unpacked again from their blobs, which
    /// were.
    fn ensure_layers(&self, image: &Image) -> Result<()> {
        let is_missing = |layer: &Layer| !self.snapshots.has_layer(&layer.chain_id);
        if !image.layers.iter().any(is_missing) {
            return Ok(());
        }
        let changing = self.lock();
        let missing: Vec<Missing> = image
            .layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| is_missing(layer))
            .map(|(at, layer)| Missing {
                diff_id: layer.diff_id,
                blob: layer.blob,
                chain_id: layer.chain_id,
                below: at.checked_sub(1).map(|below| image.layers[below].chain_id),
            })
            .collect();
        self.unpack_missing(&missing, &changing)
    }

    /// Bottom to top.
    pub(crate) fn unpack_missing(&self, missing: &[Missing], _changing: &MutexGuard<'_, ()>) -> Result<()> {
        let mut tasks = Vec::new();
        for layer in missing {
            tracing::info!(chain_id = %layer.chain_id, "layer is missing, unpacking it again");
            self.content.verify(&layer.blob)?;
            let (compression, _) = compression::detect(self.content.reader(&layer.blob)?, "a stored layer")?;
            tasks.push(Task {
                packed: Packed::Kept(&self.content, layer.blob),
                compression,
                diff_id: layer.diff_id,
                chain_id: layer.chain_id,
                below: layer.below,
                is_unpacked_already: false,
            });
        }
        let unpacker = Unpacker { snapshots: &self.snapshots, expansion: self.expansion, progress: &|_, _, _, _| {} };
        self.keep_layers(unpacker.run(tasks)?)
    }

    /// Renames the writable layer to the trash and deletes it in the background.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn discard(&self, container_id: &str) -> Result<()> {
        Ok(self.snapshots.discard(container_id)?)
    }

    /// Container ids that have a writable layer (to sweep orphans).
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn prepared(&self) -> Result<Vec<String>> {
        Ok(self.snapshots.prepared()?)
    }

    /// What a container changed, as `diff` lists it.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn changes(&self, rootfs: &OverlayRootfs) -> Result<Vec<Change>> {
        match self.snapshots.base(rootfs) {
            Some(base) => tree_diff::changes(&base, rootfs),
            None => changes::changes(rootfs),
        }
    }

    /// Bytes of regular files in a writable layer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn writable_size(&self, rootfs: &OverlayRootfs) -> Result<u64> {
        Ok(self.snapshots.writable_size(rootfs)?)
    }
}

/// A layer to unpack from its blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Digest,
    pub(crate) chain_id: Digest,
    pub(crate) below: Option<Digest>,
}

/// Top to bottom, as the overlay takes them.
fn lowers(image: &Image) -> Vec<PathBuf> {
    image.layers.iter().rev().map(|layer| layer.directory.clone()).collect()
}
