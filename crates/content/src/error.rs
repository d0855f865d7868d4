//! Why the content store could not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use berth_types::{Classify, Digest, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    #[error("cannot {operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no blob {digest} in the content store")]
    NotFound { digest: Digest },
    #[error("content has digest {found}, expected {expected}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("content of {expected} bytes expected, got {found}")]
    WrongSize { expected: u64, found: u64 },
    #[error("blob {digest} is larger than the {bytes_max} bytes allowed for its kind")]
    TooLarge { digest: Digest, bytes_max: u64 },
    #[error("ingest {reference:?} is being written by somebody else")]
    Locked { reference: String },
    #[error("there is no ingest {reference:?}")]
    NoIngest { reference: String },
    #[error("range {offset}+{length} is outside the {size_bytes} bytes of blob {digest}")]
    Range { digest: Digest, offset: u64, length: u64, size_bytes: u64 },
    #[error("blob {digest} is damaged on disk: its bytes now have digest {found}")]
    Damaged { digest: Digest, found: Digest },
}

impl ContentError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    pub(crate) fn of_blob(operation: &'static str, digest: &Digest, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::NotFound { digest: *digest };
        }
        Self::io(operation, path, source)
    }
}

impl Classify for ContentError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::PermissionDenied,
                _ => ErrorClass::Internal,
            },
            Self::NotFound { .. } | Self::NoIngest { .. } => ErrorClass::NotFound,
            Self::Locked { .. } => ErrorClass::Unavailable,
            Self::Range { .. } | Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::TooLarge { .. } => {
                ErrorClass::InvalidArgument
            }
            Self::Damaged { .. } => ErrorClass::DataLoss,
        }
    }
}
