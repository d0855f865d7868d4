//! A layer on its way into the store, and the record that says it is complete.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use berth_types::ChainId;

use crate::driver::{IMAGE_FILE, PUT_AWAY};
use crate::ledger::{LayerSize, Ledger};
use crate::trash::Trash;
use crate::{Driver, Result, Seal, SnapshotError, Unsettled};

pub(crate) const LAYER_FILE: &str = "layer.json";
pub(crate) const SETTLED_FILE: &str = "settled";

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) size_bytes: u64,
    /// In which boot it was written: after another boot only a settled layer is to be trusted.
    pub(crate) boot_id: String,
    #[serde(default)]
    pub(crate) seal: Seal,
}

impl LayerRecord {
    pub(crate) fn load(home: &Path) -> Result<Option<Self>> {
        let path = home.join(LAYER_FILE);
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).map(Some).map_err(|source| SnapshotError::Record { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SnapshotError::io("read", &path, source)),
        }
    }
}

/// A layer directory that is not in the store yet. Dropped without [`Self::commit`]: discarded.
#[derive(Debug)]
pub struct PendingLayer {
    pub(crate) chain_id: ChainId,
    pub(crate) home: PathBuf,
    pub(crate) files: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) boot_id: String,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) trash: Arc<Trash>,
    pub(crate) unsettled: Unsettled,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) is_placed: bool,
    pub(crate) stays_directory: bool,
}

impl PendingLayer {
    /// The empty directory to unpack into.
    pub fn dir(&self) -> &Path {
        &self.files
    }

    /// What stands for it as the layer below another: as [`crate::SnapshotStore::lower`] says it later. Not [`Self::dir`], which may be a
    /// descriptor's path that means nothing any more once a layer was made on this one.
    pub fn lower(&self) -> PathBuf {
        self.driver.lower(&self.home)
    }

    /// Where the layer's image is to be written instead of files into [`Self::dir`]; nothing for drivers that keep directories.
    pub fn image_file(&self) -> Option<PathBuf> {
        self.driver.writes_images().then(|| self.home.join(IMAGE_FILE))
    }

    /// Gives up the image: the layer is unpacked into [`Self::dir`], and stays a directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give_up_image(&mut self) -> Result<()> {
        let image = self.home.join(IMAGE_FILE);
        fs::remove_file(&image).map_err(|source| SnapshotError::io("remove", &image, source))?;
        self.stays_directory = true;
        Ok(())
    }

    /// Makes the layer visible under its chain id. Somebody else was first: theirs stays, ours goes.
    /// Durable after [`crate::SnapshotStore::settle`], which the store's background work also does.
    ///
    /// # Errors
    /// What the kernel says; the layer is discarded then.
    pub fn commit(mut self, size_bytes: u64) -> Result<()> {
        self.complete(size_bytes)?;
        match fs::rename(&self.home, &self.target) {
            Ok(()) => {
                self.placed(size_bytes);
                Ok(())
            }
            // A complete layer is never an empty directory, so the rename cannot replace it.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(())
            }
            Err(source) => Err(SnapshotError::io("put in place", &self.target, source)),
        }
    }

    /// Everything that belongs into the home is in it.
    pub(crate) fn complete(&self, size_bytes: u64) -> Result<()> {
        if !self.stays_directory {
            self.driver.finish_layer(&self.home)?;
        }
        self.trash.put(&self.home.join(PUT_AWAY))?;
        let path = self.home.join(LAYER_FILE);
        let record = LayerRecord { size_bytes, boot_id: self.boot_id.clone(), seal: self.driver.seal(&self.home)? };
        let json =
            serde_json::to_vec(&record).map_err(|source| SnapshotError::Record { path: path.clone(), source })?;
        fs::write(&path, json).map_err(|source| SnapshotError::io("write", &path, source))
    }

    /// It is where it belongs.
    pub(crate) fn placed(&mut self, size_bytes: u64) {
        self.is_placed = true;
        self.ledger.add(self.chain_id, LayerSize { size_bytes, disk_bytes: None });
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).insert(self.chain_id);
        self.trash.wake();
    }
}

impl Drop for PendingLayer {
    fn drop(&mut self) {
        if !self.is_placed {
            self.driver.forget(&self.home);
            // What stays is swept at the next start.
            self.trash.put(&self.home).ok();
        }
    }
}
