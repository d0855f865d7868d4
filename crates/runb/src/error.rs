//! What a person or an engine reads, and the exit code. Engines tell some refusals by runc's words for them, so those are used.

use berth_runtime::RuntimeError;
use berth_types::id::IdError;
use berth_types::signal::SignalError;
use berth_types::{Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Runtime(RuntimeError),
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
    #[error("container does not exist: {0}")]
    NoContainer(String),
    #[error("container with given ID already exists: {0}")]
    Taken(String),
    /// The container's state does not allow it.
    #[error("{0}")]
    State(String),
    #[error("exec failed")]
    Exec(#[source] Box<CommandError>),
}

impl From<RuntimeError> for CommandError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Container { id, class: ErrorClass::NotFound, .. } => Self::NoContainer(id),
            RuntimeError::Container { id, class: ErrorClass::AlreadyExists, .. } => Self::Taken(id),
            other => Self::Runtime(other),
        }
    }
}

impl CommandError {
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Runtime(error) => error.class(),
            Self::NoContainer(_) => ErrorClass::NotFound,
            Self::Taken(_) => ErrorClass::AlreadyExists,
            Self::State(_) => ErrorClass::FailedPrecondition,
            _ => ErrorClass::Internal,
        }
    }

    /// What can be done about it, where we know.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            _ => None,
        }
    }

    /// The kernel's refusal to execute the program, alone.
    pub(crate) fn exec_failure(&self) -> Option<String> {
        match self {
            Self::Runtime(RuntimeError::Step { step, detail, .. }) if step == "execute" => Some(detail.clone()),
            Self::Exec(error) => error.exec_failure(),
            _ => None,
        }
    }

    /// As runc: 255 tells a failed exec from a program that failed.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Exec(_)) { 255 } else { 1 }
    }
}
