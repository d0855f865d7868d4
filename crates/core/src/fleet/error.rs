//! What can go wrong with a task of the fleet.

use std::io;
use std::path::PathBuf;

use berth_shim_client::ShimError;
use berth_types::{Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    #[error("task {id:?}: not found")]
    NotFound { id: String },
    #[error("task {id:?}: already exists")]
    Exists { id: String },
    #[error("sandbox {id:?}: not found")]
    NoSandbox { id: String },
    #[error("sandbox {id:?}: already exists")]
    SandboxExists { id: String },
    #[error("shim: cannot {operation} the sandbox")]
    SandboxShim { operation: &'static str, source: ShimError },
    #[error("the container's id cannot be a task's")]
    Id { source: berth_types::id::IdError },
    #[error("cannot find a shim")]
    Runtime { source: ShimError },
    #[error("runtime option {option} is not done by our own shim; name another runtime")]
    Option { option: String },
    #[error("shim: cannot {operation} the task")]
    Shim { operation: &'static str, source: ShimError },
    #[error("cannot {operation} {}", .path.display())]
    Bundle { operation: &'static str, path: PathBuf, source: io::Error },
}

impl Classify for FleetError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } | Self::NoSandbox { .. } => ErrorClass::NotFound,
            Self::Exists { .. } | Self::SandboxExists { .. } => ErrorClass::AlreadyExists,
            Self::Id { .. } => ErrorClass::InvalidArgument,
            Self::Option { .. } => ErrorClass::Unimplemented,
            Self::Runtime { source } | Self::Shim { source, .. } | Self::SandboxShim { source, .. } => source.class(),
            Self::Bundle { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
                _ => ErrorClass::Internal,
            },
        }
    }
}
