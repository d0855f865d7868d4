//! Why an image operation failed.

use std::io;

use berth_content::ContentError;
use berth_metadata::MetadataError;
use berth_rootfs::RootError;
use berth_snapshot::SnapshotError;
use berth_types::{Classify, Digest, ErrorClass};

use crate::extract::ExtractError;
use crate::tar_stream::TarError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error("cannot {operation} {object}")]
    Io { operation: &'static str, object: String, source: io::Error },
    #[error("cannot work below the root file system")]
    Root(#[from] RootError),
    #[error("cannot keep the layer")]
    Snapshot(#[from] SnapshotError),
    #[error("cannot mount what is to be compared")]
    Overlay(#[from] berth_rootfs::OverlayError),
    #[error("cannot use the content store")]
    Content(#[from] ContentError),
    #[error("cannot use the image records")]
    Metadata(#[from] MetadataError),

    /// Docker's words, which its clients show.
    #[error("No such image: {name}")]
    NotFound { name: String },
    /// Docker's words.
    #[error("An image does not exist locally with the tag: {name}")]
    NotTagged { name: String },
    #[error("image id {prefix:?} is ambiguous: {first} and {second} begin with it")]
    AmbiguousId { prefix: String, first: String, second: String },
    /// Of the containerd API.
    #[error("{what} {name:?}: not found")]
    Unknown { what: &'static str, name: String },
    #[error("{what} {name:?}: already exists")]
    Exists { what: &'static str, name: String },
    #[error(transparent)]
    Labels(#[from] berth_types::label::LabelError),
    #[error("conflict: {why}")]
    Conflict { why: String },

    #[error("cannot use the archive")]
    Tar(#[from] TarError),
    #[error("cannot extract {entry}")]
    Extract { entry: String, source: ExtractError },
    /// The archive or layer is not what it must be.
    #[error("invalid {what}: {why}")]
    Invalid { what: &'static str, why: String },
    #[error("invalid {what}")]
    Document { what: String, source: serde_json::Error },
    #[error("{what} is larger than the {bytes_max} bytes allowed")]
    TooLarge { what: String, bytes_max: u64 },
    #[error("{what} has digest {found}, expected {expected}")]
    WrongDigest { what: String, expected: Digest, found: Digest },
    #[error("{what} has media type {media_type:?}, which is not supported")]
    MediaType { what: String, media_type: String },
    #[error("the archive has no image for {wanted}; it has {found}")]
    NoPlatform { wanted: String, found: String },
    /// Docker's words.
    #[error("no matching manifest for {wanted} in the manifest list entries of {name}; it has {found}")]
    NoPlatformOf { name: String, wanted: String, found: String },
    #[error("cannot apply change {instruction:?}: {why}")]
    Change { instruction: String, why: String },
    /// The record of an image cannot be understood.
    #[error("the record of image {id} is damaged")]
    Record { id: String, source: serde_json::Error },
    /// It cannot be unpacked again either.
    #[error("layer {chain_id} of {name} is damaged ({why}) and its blob cannot replace it")]
    LostLayer { chain_id: Digest, name: String, why: String, source: Box<ContentError> },
    /// Met by unpacking the layer into a directory.
    #[error("the image of the layer takes too much memory")]
    ImageMemory,
    #[error("another layer of the same load failed")]
    Cancelled,
    #[error("{0} is not implemented yet")]
    Unimplemented(&'static str),
}

impl ImageError {
    pub(crate) fn archive(why: impl Into<String>) -> Self {
        Self::Invalid { what: "image archive", why: why.into() }
    }

    pub(crate) fn reading_archive(source: io::Error) -> Self {
        Self::Io { operation: "read", object: "the image archive".to_owned(), source }
    }
}

impl Classify for ImageError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } => class_of_io(source),
            Self::Root(error) => error.class(),
            Self::Snapshot(error) => error.class(),
            Self::Overlay(error) => error.class(),
            Self::Content(error) => error.class(),
            Self::Metadata(error) => error.class(),
            Self::NotFound { .. } | Self::Unknown { .. } | Self::NoPlatformOf { .. } | Self::NotTagged { .. } => {
                ErrorClass::NotFound
            }
            Self::Exists { .. } => ErrorClass::AlreadyExists,
            Self::Labels(error) => error.class(),
            Self::Conflict { .. } => ErrorClass::FailedPrecondition,
            Self::AmbiguousId { .. }
            | Self::Invalid { .. }
            | Self::Document { .. }
            | Self::TooLarge { .. }
            | Self::WrongDigest { .. }
            | Self::MediaType { .. }
            | Self::NoPlatform { .. }
            | Self::Change { .. } => ErrorClass::InvalidArgument,
            Self::Record { .. } | Self::LostLayer { .. } => ErrorClass::DataLoss,
            Self::Cancelled => ErrorClass::Aborted,
            Self::ImageMemory => ErrorClass::ResourceExhausted,
            Self::Tar(error) => error.class(),
            Self::Extract { source, .. } => source.class(),
            Self::Unimplemented(_) => ErrorClass::Unimplemented,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Snapshot(error) => error.hint(),
            Self::Metadata(error) => error.hint(),
            Self::LostLayer { name, .. } => Some(format!(
                "berth pull {name} (or load it again): only what is damaged is fetched; berth fsck lists it"
            )),
            _ => None,
        }
    }
}

fn class_of_io(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorClass::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::PermissionDenied,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorClass::InvalidArgument,
        _ => ErrorClass::Internal,
    }
}
