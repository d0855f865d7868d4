//! What can go wrong between us and a shim.

use std::io;
use std::path::PathBuf;

use berth_types::{Classify, ErrorClass};

/// Prefix of the shim's message when the container's program itself could not be executed (`NotFound`, `PermissionDenied`).
const EXEC_PREFIX: &str = "exec: ";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// The shim answered an error of its own: its class and text.
    #[error("{message}")]
    Remote { class: ErrorClass, message: String },
    #[error("runtime {name:?} is not valid: give io.containerd.<name>.<version> or an absolute path")]
    RuntimeName { name: String },
    #[error("no shim {binary:?} for runtime {runtime:?} in {searched}")]
    NoShim { runtime: String, binary: String, searched: String },
    #[error("cannot execute shim {}", .binary.display())]
    Spawn { binary: PathBuf, source: io::Error },
    #[error("shim {} {verb} failed ({status}): {output}", .binary.display())]
    Launch { binary: PathBuf, verb: &'static str, status: String, output: String },
    #[error("cannot follow shim {} {verb}", .binary.display())]
    Follow { binary: PathBuf, verb: &'static str, source: io::Error },
    #[error("shim's answer is not understood: {answer:?}")]
    Answer { answer: String },
    #[error("cannot read the shim's address from {}", .path.display())]
    Address { path: PathBuf, source: io::Error },
    #[error("cannot connect to the shim at {}", .path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The connection broke: the shim has ended, or never took the call.
    #[error("shim has gone during {call}: {detail}")]
    Gone { call: &'static str, detail: String },
    #[error("shim did not answer {call} within {seconds} s")]
    Deadline { call: &'static str, seconds: u64 },
    #[error("cannot hand the client's stream to the shim at {}", .path.display())]
    Attach { path: PathBuf, source: io::Error },
}

impl ShimError {
    /// The user's program could not be executed (Docker's exit codes 126 and 127), as opposed to a failure of ours.
    pub fn is_exec_failure(&self) -> bool {
        matches!(self, Self::Remote { class: ErrorClass::NotFound | ErrorClass::PermissionDenied | ErrorClass::InvalidArgument, message }
            if message.starts_with(EXEC_PREFIX))
    }
}

impl Classify for ShimError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Remote { class, .. } => *class,
            Self::RuntimeName { .. } => ErrorClass::InvalidArgument,
            Self::NoShim { .. } => ErrorClass::NotFound,
            Self::Deadline { .. } => ErrorClass::DeadlineExceeded,
            Self::Connect { .. } | Self::Gone { .. } | Self::Attach { .. } => ErrorClass::Unavailable,
            Self::Address { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Spawn { .. }
            | Self::Launch { .. }
            | Self::Follow { .. }
            | Self::Answer { .. }
            | Self::Address { .. } => ErrorClass::Internal,
        }
    }
}
