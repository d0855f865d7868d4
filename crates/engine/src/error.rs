//! The one error of the engine: for a person, with a class for the faces. Made where a failure meets the operation somebody asked for.

use std::error::Error;

use berth_types::{Classify, ErrorClass, report};

/// An error for a person: what failed, why, and what to do. Faces map `class` to their codes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    pub class: ErrorClass,
    /// The whole chain on one line, operation and object first.
    pub message: String,
    pub hint: Option<String>,
    /// Exit code a CLI should use when this stopped a start: 125, 126 (not executable), 127 (not found).
    pub exit_code: u8,
}

/// Result of every operation of the engine.
pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// Exit code for a failure of the engine itself.
const ENGINE_FAILED: u8 = 125;

impl EngineError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, exit_code: ENGINE_FAILED }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::FailedPrecondition, message)
    }

    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Unimplemented, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, message)
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_exit_code(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// The same failure, as part of a larger operation.
    #[must_use]
    pub fn while_doing(mut self, operation: impl std::fmt::Display) -> Self {
        self.message = format!("{operation}: {}", self.message);
        self
    }

    /// An I/O error on a file of ours.
    pub fn io(operation: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let class = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorClass::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorClass::PermissionDenied,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
            _ => ErrorClass::Internal,
        };
        Self::new(class, format!("cannot {operation} {}: {error}", path.display()))
    }
}

impl<E: Error + Classify + 'static> From<E> for EngineError {
    fn from(error: E) -> Self {
        Self { class: error.class(), message: report(&error), hint: error.hint(), exit_code: ENGINE_FAILED }
    }
}

/// Says during which operation something failed.
pub(crate) trait Doing<T> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<EngineError>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().while_doing(operation()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_classes_and_operations() {
        let error = Err::<(), _>("x!".parse::<berth_types::Signal>().unwrap_err());
        let error = error.doing(|| "cannot stop \"web\"".to_owned()).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidArgument);
        assert_eq!(error.exit_code, 125);
        assert!(error.message.starts_with("cannot stop \"web\": signal \"x!\" is not valid"), "{error}");
    }
}
