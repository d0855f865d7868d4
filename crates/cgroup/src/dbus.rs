//! A small D-Bus client: one connection, one call at a time, blocking, every wait with a deadline.
//!
//! It speaks to systemd's own socket, or through a message bus. It is no general client: no descriptors are passed, no calls are
//! served, and of the types only those that systemd's manager takes are there.
//!
//! # Spec
//! D-Bus Specification 0.43: "Authentication Protocol", "Message Protocol", "Type System".

mod connection;
mod message;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use berth_types::{Classify, ErrorClass};

pub(crate) use connection::{Call, Connection};
pub(crate) use message::Message;
pub(crate) use wire::{Encoder, Value};

/// What can go wrong between us and the other end of the socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbusError {
    #[error("cannot connect to {}", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("{} does not let us in: {answer:?}", .socket.display())]
    Authentication { socket: PathBuf, answer: String },
    #[error("cannot {what} {}", .socket.display())]
    Transfer { what: &'static str, socket: PathBuf, source: io::Error },
    #[error("{} closed the connection while we waited for {awaited}", .socket.display())]
    Closed { socket: PathBuf, awaited: String },
    #[error("no answer from {} to {awaited} within {waited:?}", .socket.display())]
    Deadline { socket: PathBuf, awaited: String, waited: Duration },
    /// An error reply, by the name the service gave it.
    #[error("{member} was refused with {name}: {message}")]
    Refused { member: &'static str, name: String, message: String },
    #[error("{} sent a message we cannot read: {problem}", .socket.display())]
    Malformed { socket: PathBuf, problem: &'static str },
}

impl DbusError {
    /// Whether the service answered with this error name.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

impl Classify for DbusError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Connect { .. } | Self::Transfer { .. } | Self::Closed { .. } => ErrorClass::Unavailable,
            Self::Deadline { .. } => ErrorClass::DeadlineExceeded,
            Self::Authentication { .. } => ErrorClass::PermissionDenied,
            Self::Malformed { .. } => ErrorClass::Internal,
            Self::Refused { name, .. } => match name.rsplit('.').next().unwrap_or_default() {
                "NoSuchUnit" => ErrorClass::NotFound,
                "UnitExists" => ErrorClass::AlreadyExists,
                "AccessDenied" | "InteractiveAuthorizationRequired" => ErrorClass::PermissionDenied,
                "InvalidArgs" | "PropertyReadOnly" => ErrorClass::InvalidArgument,
                "Timeout" | "NoReply" => ErrorClass::DeadlineExceeded,
                "LimitsExceeded" => ErrorClass::ResourceExhausted,
                _ => ErrorClass::Internal,
            },
        }
    }
}
