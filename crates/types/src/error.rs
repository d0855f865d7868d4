//! The class of an error tells a caller what to do about it; each edge maps classes to its own codes.

use std::error::Error;
use std::fmt::Write as _;

/// What kind of failure this is, independent of the layer it came from (the gRPC canonical set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    FailedPrecondition,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    DeadlineExceeded,
    Unimplemented,
    Aborted,
    DataLoss,
    Internal,
}

/// Every public error of the workspace has a class.
pub trait Classify {
    fn class(&self) -> ErrorClass;

    /// What the person who asked can do about it, when we know.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Renders an error and its chain of causes on one line: `what failed: because: because`.
///
/// `Display` of our errors never includes the source, so every link appears exactly once.
pub fn report(error: &(dyn Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        write!(out, ": {cause}").expect("writing to a String cannot fail");
        next = cause.source();
    }
    out
}
