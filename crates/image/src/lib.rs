//! Images: load, save, import, tag, history, commit, diff, and the root file systems made of them.
//!
//! Synchronous: the daemon calls it on blocking threads; loading starts threads of its own and joins them. It never talks to a registry and
//! never starts anything out of an image. What an archive says is checked before anything is made of it; a load is all or nothing.

pub mod archive;
mod candidate;
mod changes;
mod compression;
mod disk;
mod docker_archive;
mod document;
mod error;
mod explain;
mod extract;
mod fsck;
mod history;
mod housekeeping;
mod import;
mod instruction;
mod layer_apply;
mod layer_image;
mod layer_pack;
mod load;
mod oci_layout;
mod outer;
mod pack_tree;
mod platform;
mod pull;
mod push;
mod record;
mod remove;
mod replaced;
mod rootfs;
mod save;
mod spool;
mod store;
mod tag;
pub mod tar_stream;
pub mod tenant;
pub mod tree_diff;
mod unpack;

use std::path::PathBuf;

use berth_types::{Digest, Reference, Timestamp};
pub use changes::{Change, ChangeKind, changes};
pub use compression::Expansion;
pub use disk::StoreUse;
pub use error::ImageError;
pub use explain::{LayerListing, MountPoint, PathStory, PathVersion, Say};
pub use extract::ExtractError;
pub use fsck::{FsckReport, Problem, Uses};
pub use layer_apply::{Applied, apply, apply_merged, apply_on};
pub use layer_pack::pack;
pub use pull::{
    Incoming, LayerSource, PullPlan, RemoteBlob, RemoteDocument, RemoteIndex, RemoteManifest, TargetPlatform,
    platform_of_config,
};
pub use push::{Outgoing, OutgoingBlob};
pub use replaced::{LayerUsers, UserOfSnapshot, UsersOfImage};
pub use store::{Collected, CollectedSnapshot, CollectionCounts, ImageStore, StorageOptions, ThinPool};

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
    /// When somebody last loaded, pulled, built or tagged it, with or without a name; not known of images of earlier versions.
    pub wanted: Option<Timestamp>,
}

/// Bottom to top in `Image::layers`.
#[derive(Debug, Clone)]
pub struct Layer {
    pub diff_id: Digest,
    pub chain_id: Digest,
    pub blob: Digest,
    /// What stands for it among the lower directories of a container; a directory unless the snapshotter keeps it elsewhere.
    pub directory: PathBuf,
    pub size_bytes: u64,
}

/// What a removal did.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    pub untagged: Vec<Reference>,
    pub deleted: Vec<Digest>,
    pub reclaimed_bytes: u64,
}

/// One step of an image's making.
#[derive(Debug, Clone)]
pub struct HistoryItem {
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub comment: String,
    pub size_bytes: u64,
    pub is_empty_layer: bool,
}

/// What a new image is to say of itself.
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

/// Whether containers use an image, with the id of one that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUse {
    Unused,
    Stopped(String),
    Running(String),
}
