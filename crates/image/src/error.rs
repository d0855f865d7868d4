//! Why an image operation failed.

use std::io;

use berth_rootfs::RootError;
use berth_snapshot::SnapshotError;
use berth_types::{Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error("cannot {operation} {object}")]
    Io { operation: &'static str, object: String, source: io::Error },
    #[error("cannot work below the root file system")]
    Root(#[from] RootError),
    #[error("cannot keep the layer")]
    Snapshot(#[from] SnapshotError),
    /// The archive or layer is not what it must be.
    #[error("invalid {what}: {why}")]
    Invalid { what: &'static str, why: String },
    #[error("{0} is not implemented yet")]
    Unimplemented(&'static str),
}

impl Classify for ImageError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } => class_of_io(source),
            Self::Root(error) => error.class(),
            Self::Snapshot(error) => error.class(),
            Self::Invalid { .. } => ErrorClass::InvalidArgument,
            Self::Unimplemented(_) => ErrorClass::Unimplemented,
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
