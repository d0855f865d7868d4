//! Why a snapshot operation failed.

use std::io;
use std::path::{Path, PathBuf};

use berth_rootfs::RootError;
use berth_types::{Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    #[error("cannot {operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot work below {}", .path.display())]
    Tree { path: PathBuf, source: RootError },
    #[error("the snapshots at {} have version {found:?}; this engine reads version {expected}", .path.display())]
    Version { path: PathBuf, found: String, expected: &'static str },
    #[error("the record of the layer at {} cannot be read", .path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("container {container_id:?} has a writable layer already")]
    AlreadyPrepared { container_id: String },
    #[error("container {container_id:?} has no writable layer")]
    NotPrepared { container_id: String },
    #[error("{container_id:?} cannot be the name of a writable layer")]
    Name { container_id: String },
    #[error("{} has more than {levels} levels of directories", .path.display())]
    TooDeep { path: PathBuf, levels: usize },
}

impl SnapshotError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}

impl Classify for SnapshotError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorClass::NotFound,
                io::ErrorKind::AlreadyExists => ErrorClass::AlreadyExists,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::PermissionDenied,
                _ => ErrorClass::Internal,
            },
            Self::Tree { source, .. } => source.class(),
            Self::Version { .. } => ErrorClass::FailedPrecondition,
            Self::Record { .. } => ErrorClass::DataLoss,
            Self::AlreadyPrepared { .. } => ErrorClass::AlreadyExists,
            Self::NotPrepared { .. } => ErrorClass::NotFound,
            Self::Name { .. } | Self::TooDeep { .. } => ErrorClass::InvalidArgument,
        }
    }
}
