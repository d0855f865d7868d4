//! The distribution client: manifests and blobs from and to registries (distribution-spec 1.1), and a small registry of our own.
//!
//! It moves bytes and proves that they have the digest they were asked by; what a manifest means is for crate `image`. Credentials come with
//! each [`Session`] and go to the registry they are for, to nobody else. Everything a registry sends is bounded, every wait has a deadline.
//!
//! ```text
//! Registry (one per process: transports, options)
//!   └─ Session (one repository, one person's credentials)
//!        resolve · manifest · tags · referrers · fetch (ranges into a Partial) · push
//! ```
//!
//! # Spec
//! OCI distribution-spec 1.1; Docker registry token authentication; containerd `hosts.toml`; `containers-registries.conf(5)`.

mod address;
mod challenge;
mod connector;
mod credentials;
mod download;
mod endpoint;
mod error;
mod hosts;
mod manifest;
mod options;
mod partial;
mod proxy;
mod referrer;
mod request;
mod retry;
mod serve;
mod session;
mod tls;
mod token;
mod transport;
mod upload;

pub use credentials::{Credentials, LoginOutcome};
pub use download::Fetch;
pub use error::RegistryError;
pub use manifest::{Described, Fetched, MANIFEST_BYTES_MAX};
pub use options::RegistryOptions;
pub use partial::{Partial, PartialReader, Partials};
pub use proxy::Proxies;
pub use serve::{PushPolicy, RegistryServer, ServeOptions};
pub use session::{Registry, Session};
pub use upload::Pushed;

pub(crate) type Result<T> = std::result::Result<T, RegistryError>;
