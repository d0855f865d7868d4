//! Why the database could not do what was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use berth_types::{Classify, ErrorClass};

use crate::Table;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    #[error("cannot {operation} the metadata file {}", .file.display())]
    File { operation: &'static str, file: PathBuf, source: io::Error },
    #[error("another process has the metadata file {} open", .file.display())]
    Busy { file: PathBuf },
    #[error("the metadata file {} is damaged", .file.display())]
    Damaged { file: PathBuf, source: Damage },
    #[error(
        "the metadata file {} has schema {found}; this version knows schemas up to {known}", .file.display()
    )]
    Newer { file: PathBuf, found: String, known: u32 },
    #[error("cannot read {table:?} records from the metadata file {}", .file.display())]
    Read { file: PathBuf, table: Table, source: Arc<redb::Error> },
    #[error("cannot write to the metadata file {}", .file.display())]
    Write { file: PathBuf, source: Arc<redb::Error> },
    #[error("the {table:?} record {key:?} is too large: {bytes} bytes")]
    TooLarge { table: Table, key: String, bytes: usize },
    #[error("the metadata writer has stopped")]
    Stopped,
}

/// What is wrong with a file that is no database of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    #[error("{0}")]
    Content(String),
    #[error("its records contradict its format")]
    Inconsistent,
    #[error("it is empty")]
    Empty,
    #[error("it has no schema version")]
    NoSchema,
    #[error("it does not say which records of its journal it lacks")]
    NoGeneration,
    #[error("record {0} has a sound checksum but is none of this version's")]
    Record(usize),
}

impl Classify for MetadataError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::File { source, .. } => class_of_io(source),
            Self::Busy { .. } | Self::Stopped => ErrorClass::Unavailable,
            Self::Damaged { .. } => ErrorClass::DataLoss,
            Self::Newer { .. } => ErrorClass::FailedPrecondition,
            Self::Read { source, .. } | Self::Write { source, .. } => match source.as_ref() {
                redb::Error::Io(error) => class_of_io(error),
                redb::Error::Corrupted(_) => ErrorClass::DataLoss,
                redb::Error::PreviousIo => ErrorClass::Unavailable,
                _ => ErrorClass::Internal,
            },
            Self::TooLarge { .. } => ErrorClass::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => Some("is another daemon running on the same data root?".to_owned()),
            Self::Newer { .. } => Some("use the version that wrote it, or another data root".to_owned()),
            Self::Damaged { .. } => Some("move the file away to start with no images and containers".to_owned()),
            _ => None,
        }
    }
}

impl MetadataError {
    /// The disk had no room.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::File { source, .. } => is_full(source),
            Self::Write { source, .. } => matches!(source.as_ref(), redb::Error::Io(error) if is_full(error)),
            _ => false,
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn class_of_io(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::PermissionDenied,
        io::ErrorKind::NotFound => ErrorClass::NotFound,
        _ => ErrorClass::Internal,
    }
}
