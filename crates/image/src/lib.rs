//! Images: load, save, import, tag, history, commit, diff, and the root file systems made of them. Synchronous; the daemon calls it on blocking threads.
//! SEAM (stub) used by `engine`.

pub mod archive;
mod changes;
mod error;
mod layer_apply;
mod layer_pack;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_metadata::Metadata;
use berth_rootfs::OverlayRootfs;
use berth_types::{Digest, Reference, Timestamp};

pub use changes::{Change, ChangeKind, changes};
pub use error::ImageError;
pub use layer_apply::{Applied, apply};
pub use layer_pack::pack;

type Result<T> = std::result::Result<T, ImageError>;

/// Called with (object id, what happens, bytes so far, bytes in all).
pub type ProgressFn<'a> = &'a (dyn Fn(&str, &str, Option<u64>, Option<u64>) + Send + Sync);

/// An image in the store. Its id is the digest of its config.
#[derive(Debug, Clone)]
pub struct Image {
    pub id: Digest,
    pub manifest: Digest,
    pub references: Vec<Reference>,
    /// The config document, verbatim JSON.
    pub config_json: serde_json::Value,
    pub config: berth_oci::image::ImageConfiguration,
    pub diff_ids: Vec<Digest>,
    /// Unpacked size of all layers.
    pub size_bytes: u64,
    pub layers: Vec<Layer>,
    pub last_tagged: Option<Timestamp>,
}

/// Bottom to top in `Image::layers`.
#[derive(Debug, Clone)]
pub struct Layer {
    pub diff_id: Digest,
    pub chain_id: Digest,
    pub blob: Digest,
    pub directory: PathBuf,
    pub size_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Removed {
    pub untagged: Vec<Reference>,
    pub deleted: Vec<Digest>,
    pub reclaimed_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct HistoryItem {
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub comment: String,
    pub size_bytes: u64,
    pub is_empty_layer: bool,
}

#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    pub reference: Option<Reference>,
    pub author: String,
    pub message: String,
    /// Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL, ONBUILD).
    pub changes: Vec<String>,
    /// The container's config to put into the image before `changes` (image-spec `config`, JSON).
    pub config: serde_json::Value,
    /// What the history line says was run.
    pub created_by: String,
    pub container_id: String,
}

/// All images of a data root.
#[derive(Debug)]
pub struct ImageStore {
    _private: (),
}

impl ImageStore {
    /// Opens content, snapshots and image records below the data root; sweeps what a crash left half done.
    pub fn open(_data_root: &Path, _metadata: Arc<Metadata>) -> Result<Self> {
        Err(ImageError::Unimplemented("the image store"))
    }
    pub fn list(&self) -> Result<Vec<Image>> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// By reference, full id, or unambiguous id prefix (with or without `sha256:`).
    pub fn get(&self, _name_or_id: &str) -> Result<Image> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// docker-archive or OCI archive (tar, optionally gzip or zstd). All or nothing. Returns references, or ids where untagged.
    pub fn load(
        &self,
        _tar: &mut (dyn Read + Send),
        _progress: ProgressFn<'_>,
    ) -> Result<Vec<std::result::Result<Reference, Digest>>> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// A tar that is both OCI layout and docker-archive, as Docker writes it.
    pub fn save(&self, _names: &[String], _out: &mut (dyn Write + Send), _progress: ProgressFn<'_>) -> Result<()> {
        Err(ImageError::Unimplemented("the image store"))
    }
    pub fn import(
        &self,
        _tar: &mut (dyn Read + Send),
        _options: &CommitOptions,
        _progress: ProgressFn<'_>,
    ) -> Result<Digest> {
        Err(ImageError::Unimplemented("the image store"))
    }
    pub fn tag(&self, _name_or_id: &str, _target: &Reference) -> Result<()> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// Docker's rules: a reference untags and deletes the image when it was the last; an id deletes all, `force` where several references or
    /// stopped containers use it. `used_by(id)` tells whether containers use an image (running ones: never deletable).
    pub fn remove(&self, _name_or_id: &str, _force: bool, _used_by: &dyn Fn(&Digest) -> ImageUse) -> Result<Removed> {
        Err(ImageError::Unimplemented("the image store"))
    }
    pub fn history(&self, _name_or_id: &str) -> Result<Vec<HistoryItem>> {
        Err(ImageError::Unimplemented("the image store"))
    }

    /// Upper and work directories for a container, on top of an image's layers. Durable only if asked.
    pub fn prepare(&self, _container_id: &str, _image: &Image, _is_throw_away: bool) -> Result<OverlayRootfs> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// The root file system of an existing container again (after a restart).
    pub fn rootfs(&self, _container_id: &str, _image: &Image) -> Result<OverlayRootfs> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// Renames the writable layer to the trash and deletes it in the background.
    pub fn discard(&self, _container_id: &str) -> Result<()> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// Container ids that have a writable layer (to sweep orphans).
    pub fn prepared(&self) -> Result<Vec<String>> {
        Err(ImageError::Unimplemented("the image store"))
    }

    pub fn changes(&self, _rootfs: &OverlayRootfs) -> Result<Vec<Change>> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// The writable layer becomes the newest layer of a new image on top of `base`. The caller pauses the container.
    pub fn commit(&self, _base: &Image, _rootfs: &OverlayRootfs, _options: &CommitOptions) -> Result<Digest> {
        Err(ImageError::Unimplemented("the image store"))
    }
    /// Bytes of regular files in a writable layer.
    pub fn writable_size(&self, _rootfs: &OverlayRootfs) -> Result<u64> {
        Err(ImageError::Unimplemented("the image store"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUse {
    Unused,
    Stopped(String),
    Running(String),
}
