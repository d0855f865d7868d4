//! Root file systems of containers: the layers of an image below a writable pair.

use std::path::PathBuf;
use std::sync::MutexGuard;

use berth_rootfs::OverlayRootfs;
use berth_snapshot::TreeSize;
use berth_types::{ChainId, Digest, Reference};

use crate::changes::{self, Change};
use crate::store::ImageStore;
use crate::unpack::{Packed, Task, Unpacker};
use crate::{Image, ImageError, Result, compression, tree_diff};

impl ImageStore {
    /// Upper and work directories for a container, on top of an image's layers. Durable only if asked.
    ///
    /// # Errors
    /// When they cannot be made, or are there already.
    pub fn prepare(&self, container_id: &str, image: &Image, is_throw_away: bool) -> Result<OverlayRootfs> {
        self.ensure_layers(image)?;
        Ok(self.snapshots.prepare(container_id, self.lowers(image), is_throw_away)?)
    }

    /// The root file system of an existing container again (after a restart).
    ///
    /// # Errors
    /// `NotFound` when it was never prepared.
    pub fn rootfs(&self, container_id: &str, image: &Image) -> Result<OverlayRootfs> {
        self.ensure_layers(image)?;
        Ok(self.snapshots.rootfs(container_id, self.lowers(image))?)
    }

    /// Whether layers, bottom to top, are there as they were written, as far as that is cheap to see.
    pub fn are_usable(&self, layers: &[ChainId]) -> bool {
        self.unusable(layers).is_empty()
    }

    /// Grows when a layer leaves its place: root file systems that were asked for before are to be asked for again.
    pub fn layer_removals(&self) -> u64 {
        self.snapshots.removals()
    }

    /// Layers that a power failure cost (their files were not on the disk yet), that fsck dropped, or that somebody damaged, are unpacked again
    /// from their blobs. All blobs are read before the first layer goes. Containers that run on the old ones keep those (see `snapshot::replaced`).
    fn ensure_layers(&self, image: &Image) -> Result<()> {
        let chain: Vec<ChainId> = image.layers.iter().map(|layer| layer.chain_id).collect();
        if self.are_usable(&chain) {
            return Ok(());
        }
        let changing = self.lock();
        let mut missing = Vec::new();
        for (at, why) in self.unusable(&chain) {
            let layer = &image.layers[at];
            tracing::warn!(chain_id = %layer.chain_id, why, "layer cannot be used, unpacking it again");
            self.content.verify(&layer.blob).map_err(|source| ImageError::LostLayer {
                chain_id: layer.chain_id,
                why,
                name: image.references.first().map_or_else(|| image.id.to_string(), Reference::familiar),
                source: Box::new(source),
            })?;
            let below = at.checked_sub(1).map(|below| chain[below]);
            missing.push(Missing { diff_id: layer.diff_id, blob: layer.blob, chain_id: layer.chain_id, below });
        }
        self.unpack_missing(&missing, &changing)
    }

    /// Which of a chain's layers (bottom to top) cannot be used, and why. Where every layer holds the whole tree, those below a good one do not
    /// matter.
    fn unusable(&self, chain: &[ChainId]) -> Vec<(usize, String)> {
        let from_the_top = chain.iter().enumerate().rev().map(|(at, chain_id)| {
            let damage = self.snapshots.layer_damage(chain_id);
            damage.map(|why| (at, why))
        });
        let mut unusable: Vec<(usize, String)> = match self.snapshots.driver().is_layered() {
            true => from_the_top.flatten().collect(),
            false => from_the_top.map_while(|damage| damage).collect(),
        };
        unusable.reverse();
        unusable
    }

    /// Bottom to top; their blobs were read and found whole. What is in their places now is kept aside for those who stand on it.
    pub(crate) fn unpack_missing(&self, missing: &[Missing], changing: &MutexGuard<'_, ()>) -> Result<()> {
        let mut tasks = Vec::new();
        for layer in missing {
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
        let unpacker = Unpacker::new(&self.snapshots, self.expansion, &|_, _, _, _| {});
        for layer in unpacker.run(tasks)? {
            self.snapshots.replace_layer(layer.pending, layer.size_bytes)?;
        }
        // Those who are on the old copies now, before anybody comes to the new ones.
        self.let_go_replaced(changing)
    }

    /// Top to bottom, as the overlay takes them. Asked for only now: a layer that was made again may be elsewhere than `image` says.
    fn lowers(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|layer| self.snapshots.lower(&layer.chain_id)).collect()
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

    /// What a writable layer holds now, with the blocks it takes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn writable_tree(&self, rootfs: &OverlayRootfs) -> Result<TreeSize> {
        Ok(self.snapshots.writable_tree(rootfs)?)
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
