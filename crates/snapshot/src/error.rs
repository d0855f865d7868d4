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
    /// containerd's clients look for these by class, people by text.
    #[error("snapshot {key:?} does not exist")]
    Unknown { key: String },
    #[error("snapshot {key:?} already exists")]
    Exists { key: String },
    #[error("{key:?} cannot be the key of a snapshot")]
    Key { key: String },
    #[error("snapshot {key:?} is committed; only active ones and views can be mounted")]
    Committed { key: String },
    #[error("snapshot {key:?} is not active")]
    NotActive { key: String },
    #[error("parent {key:?} is not a committed snapshot")]
    Parent { key: String },
    #[error("cannot remove snapshot {key:?}: snapshot {child:?} is based on it")]
    HasChild { key: String, child: String },
    #[error("snapshot {key:?} has more than {parents} parents")]
    TooManyParents { key: String, parents: usize },
    #[error("cannot use the mounts: {why}")]
    Mounts { why: &'static str },
    #[error("there is no snapshotter {name:?}")]
    UnknownDriver { name: String },
    #[error("snapshotter {driver} does not work at {}: {why}", .root.display())]
    Unusable { driver: String, root: PathBuf, why: String },
    /// An external snapshotter's refusal, in its own words.
    #[error("snapshotter {snapshotter} cannot {operation} {key:?}: {message}")]
    Remote { snapshotter: String, operation: &'static str, key: String, class: ErrorClass, message: String },
    #[error("snapshotter {snapshotter} cannot be reached at {}: {why}", .address.display())]
    Unreachable { snapshotter: String, address: PathBuf, why: String },
    #[error("snapshotter {snapshotter}: {what}")]
    Setting { snapshotter: String, what: String },
    #[error("label {label} {value:?} is no mapping of ids (container:host:size)")]
    Mapping { label: &'static str, value: String },
    #[error("snapshotter {driver} cannot map ids on this host (its capabilities do not have remap-ids)")]
    CannotMap { driver: String },
    #[error(transparent)]
    Labels(#[from] berth_types::label::LabelError),
    #[error(transparent)]
    Records(#[from] crate::snapshotter::RecordsError),
    #[error("{} has more than {levels} levels of directories", .path.display())]
    TooDeep { path: PathBuf, levels: usize },
}

impl SnapshotError {
    /// A call that failed on a path.
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
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
            Self::AlreadyPrepared { .. } | Self::Exists { .. } => ErrorClass::AlreadyExists,
            Self::NotPrepared { .. } | Self::Unknown { .. } => ErrorClass::NotFound,
            Self::Committed { .. } | Self::NotActive { .. } | Self::HasChild { .. } => ErrorClass::FailedPrecondition,
            Self::Unusable { .. } => ErrorClass::FailedPrecondition,
            Self::Records(error) => error.class,
            Self::Labels(error) => error.class(),
            Self::Remote { class, .. } => *class,
            Self::Unreachable { .. } => ErrorClass::Unavailable,
            Self::CannotMap { .. } => ErrorClass::Unimplemented,
            Self::Name { .. }
            | Self::TooDeep { .. }
            | Self::Mounts { .. }
            | Self::Mapping { .. }
            | Self::Setting { .. }
            | Self::UnknownDriver { .. }
            | Self::Key { .. }
            | Self::Parent { .. }
            | Self::TooManyParents { .. } => ErrorClass::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownDriver { name } => Some(format!(
                "choose one of {}; anything else ({}) needs an external snapshotter: proxy-snapshotter = [\"NAME=unix:///SOCKET\"]",
                crate::DRIVERS.join(", "),
                if name.is_empty() { "aufs" } else { name.as_str() }
            )),
            Self::Unusable { driver, .. } => {
                let others: Vec<&str> = crate::DRIVERS.into_iter().filter(|name| *name != driver.as_str()).collect();
                Some(format!("leave --snapshotter out to take the best that works, or try {}", others.join(" or ")))
            }
            Self::Unreachable { snapshotter, .. } => Some(format!(
                "start the external snapshotter, or correct its address in proxy-snapshotter = [\"{snapshotter}=unix:///SOCKET\"]"
            )),
            _ => None,
        }
    }
}
