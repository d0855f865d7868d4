//! Why a registry did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_types::{Classify, Digest, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    #[error("cannot connect to {host}")]
    Connect { host: String, source: io::Error },
    /// The connection broke, or what came is not HTTP.
    #[error("cannot {operation} {url}")]
    Broken { operation: &'static str, url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot {operation} {url}: nothing came for {} s", .waited.as_secs())]
    Stalled { operation: &'static str, url: String, waited: Duration },
    /// The registry's own words, when it had any.
    #[error("cannot {operation} {url}: status {status}{}", spoken(.code, .message))]
    Status {
        operation: &'static str,
        url: String,
        status: u16,
        code: String,
        message: String,
        retry_after: Option<Duration>,
    },
    /// Docker's words, which its clients show.
    #[error("manifest for {name} not found: manifest unknown")]
    NoManifest { name: String },
    /// Neither the referrers API nor the tag for registries without it can be used.
    #[error("cannot note what the manifest refers to: tag {tag} holds something that is no index")]
    ReferrersTag { tag: String },
    #[error("{action} access denied for {name}, repository does not exist or may require 'docker login'{}", spoken("", .message))]
    Denied { action: &'static str, name: String, message: String },
    #[error("login to {host} failed{}", spoken("", .message))]
    BadLogin { host: String, message: String },
    #[error("{what} is larger than the {bytes_max} bytes allowed")]
    TooLarge { what: String, bytes_max: u64 },
    #[error("{what} has digest {found}, expected {expected}")]
    WrongDigest { what: String, expected: Digest, found: Digest },
    /// The registry does something no registry may do.
    #[error("{host} misbehaves: {why}")]
    Misbehaves { host: String, why: String },
    /// Something we do not do because it would give away credentials or trust.
    #[error("refused: {why}")]
    Refused { why: String },
    #[error("bad registry configuration {}: {why}", .path.display())]
    Config { path: PathBuf, why: String },
    #[error("bad registry option {option}: {why}")]
    Option { option: &'static str, why: String },
    #[error("cannot {operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// The content store cannot keep what came.
    #[error("cannot keep what came")]
    Kept {
        #[from]
        source: berth_content::ContentError,
    },
    #[error("the transfer of {digest} was given up")]
    GivenUp { digest: Digest },
    #[error("{what} is not supported")]
    Unsupported { what: String },
    /// Several waited for the same transfer.
    #[error(transparent)]
    Shared(Arc<RegistryError>),
}

fn spoken(code: &str, message: &str) -> String {
    match (code.is_empty(), message.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!(": {message}"),
        (false, true) => format!(": {code}"),
        (false, false) => format!(": {code}: {message}"),
    }
}

impl RegistryError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    pub(crate) fn misbehaves(host: &str, why: impl Into<String>) -> Self {
        Self::Misbehaves { host: host.to_owned(), why: why.into() }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// What the registry asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another host may have what this one has not.
    pub(crate) fn is_for_next_host(&self) -> bool {
        self.is_passing()
            || matches!(self, Self::NoManifest { .. } | Self::Denied { .. } | Self::Misbehaves { .. })
            || matches!(
                self,
                Self::Status { .. } | Self::WrongDigest { .. } | Self::TooLarge { .. } | Self::Refused { .. }
            )
    }
}

impl Classify for RegistryError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Connect { .. } | Self::Broken { .. } => ErrorClass::Unavailable,
            Self::Stalled { .. } => ErrorClass::DeadlineExceeded,
            Self::Status { status, .. } => match status {
                401 | 403 => ErrorClass::PermissionDenied,
                404 => ErrorClass::NotFound,
                400..=499 => ErrorClass::FailedPrecondition,
                _ => ErrorClass::Unavailable,
            },
            Self::NoManifest { .. } | Self::Denied { .. } => ErrorClass::NotFound,
            Self::ReferrersTag { .. } => ErrorClass::FailedPrecondition,
            Self::BadLogin { .. } | Self::Refused { .. } => ErrorClass::PermissionDenied,
            Self::TooLarge { .. } | Self::Config { .. } | Self::Option { .. } => ErrorClass::InvalidArgument,
            Self::WrongDigest { .. } | Self::Misbehaves { .. } => ErrorClass::DataLoss,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
                io::ErrorKind::PermissionDenied => ErrorClass::PermissionDenied,
                _ => ErrorClass::Internal,
            },
            Self::Kept { source } => source.class(),
            Self::GivenUp { .. } => ErrorClass::Aborted,
            Self::Unsupported { .. } => ErrorClass::Unimplemented,
            Self::Shared(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { .. } => Some("log in with `berth login REGISTRY`, or check the name".to_owned()),
            Self::Connect { host, .. } => {
                Some(format!("a registry without TLS needs `berthd --insecure-registry {host}`, loopback does not"))
            }
            Self::Shared(error) => error.hint(),
            Self::Stalled { .. } => Some("run it again: what came so far is kept and not fetched twice".to_owned()),
            _ => None,
        }
    }
}
