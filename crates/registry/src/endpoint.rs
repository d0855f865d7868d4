//! One host that may answer for a repository: the registry itself or a mirror of it.

use http::{HeaderMap, Uri};

use crate::tls::TlsSettings;
use crate::{RegistryError, Result, address};

/// What a host may be asked for (`hosts.toml`, `capabilities`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Manifests by tag.
    pub(crate) resolve: bool,
    /// Manifests by digest, and blobs.
    pub(crate) pull: bool,
    pub(crate) push: bool,
}

impl Capabilities {
    pub(crate) const ALL: Self = Self { resolve: true, pull: true, push: true };
    pub(crate) const READ: Self = Self { resolve: true, pull: true, push: false };
}

/// How a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    Http,
    /// Whichever the host speaks; only for loopback and hosts the operator calls insecure.
    Either,
}

#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    /// `host[:port]`
    pub(crate) authority: String,
    /// Path in front of `/<repository>/…`: `/v2` unless overridden.
    pub(crate) prefix: String,
    /// The repository as this host calls it.
    pub(crate) repository: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) headers: HeaderMap,
    pub(crate) tls: TlsSettings,
    /// The registry a mirror is asked on behalf of; sent as `ns`.
    pub(crate) on_behalf_of: Option<String>,
    /// Whether a person's credentials for the registry may be used here.
    pub(crate) is_origin: bool,
}

impl Endpoint {
    /// The URL of something below the repository (`manifests/latest`), once the scheme is known.
    pub(crate) fn uri(&self, is_tls: bool, rest: &str) -> Result<Uri> {
        let scheme = if is_tls { "https" } else { "http" };
        let joint = if rest.contains('?') { '&' } else { '?' };
        let namespace = self.on_behalf_of.as_deref();
        let query = namespace.map(|ns| format!("{joint}ns={}", address::percent_encoded(ns))).unwrap_or_default();
        let text = format!("{scheme}://{}{}/{}/{rest}{query}", self.authority, self.prefix, self.repository);
        text.parse()
            .map_err(|_| RegistryError::Misbehaves { host: self.authority.clone(), why: format!("no URL: {text:?}") })
    }

    /// The URL that says whether this is a registry at all.
    pub(crate) fn base_uri(&self, is_tls: bool) -> Result<Uri> {
        let scheme = if is_tls { "https" } else { "http" };
        let text = format!("{scheme}://{}{}/", self.authority, self.prefix);
        text.parse()
            .map_err(|_| RegistryError::Misbehaves { host: self.authority.clone(), why: format!("no URL: {text:?}") })
    }
}
