//! What a person or an engine reads, and the exit code.

use berth_runtime::{ExecFailure, RuntimeError};
use berth_types::id::IdError;
use berth_types::signal::SignalError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Signal(#[from] SignalError),
    #[error("cannot {what} {path}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("{path} is not the JSON it should be")]
    Json { path: String, source: serde_json::Error },
    #[error("cannot {what}")]
    Kernel { what: &'static str, source: rustix::io::Errno },
    #[error("{0} is not implemented yet")]
    NotYet(&'static str),
    #[error("{0}")]
    Usage(String),
}

impl CommandError {
    /// As the field's runtimes: what the shell says for programs that cannot be run, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(error) => match error.exec_failure() {
                Some(ExecFailure::NotFound) => 127,
                Some(ExecFailure::NotExecutable) => 126,
                None => 1,
            },
            _ => 1,
        }
    }
}
