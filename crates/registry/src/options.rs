//! What the operator configures. Files named here are read for each operation, so a change applies to the next one.

use std::path::PathBuf;
use std::time::Duration;

use crate::proxy::Proxies;

#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Directories with one directory per registry, in it `hosts.toml` or `*.crt`, `*.cert`, `*.key`; the first that has the registry wins.
    pub hosts_directories: Vec<PathBuf>,
    /// A `registries.conf`; not there: fine.
    pub registries_conf: Option<PathBuf>,
    /// Mirrors of Docker Hub (URLs), asked before it.
    pub hub_mirrors: Vec<String>,
    /// `host[:port]` or `address/bits` of registries that may speak plain HTTP or have any certificate. Loopback always may.
    pub insecure: Vec<String>,
    pub proxies: Proxies,
    pub user_agent: String,
    /// Nothing at all coming for so long ends an attempt.
    pub stall: Duration,
    pub connect_timeout: Duration,
    /// Attempts without progress before a transfer is given up.
    pub attempts_max: u32,
    /// Wait before the second attempt; doubled from then on, up to [`Self::backoff_max`].
    pub backoff: Duration,
    /// Also the longest `Retry-After` that is honoured.
    pub backoff_max: Duration,
    /// Ranges of one blob at the same time.
    pub streams_per_blob: usize,
    /// Transfers of blobs at the same time, over all hosts.
    pub streams_max: usize,
    /// Blobs on their way at the same time, over all hosts; each has two files open, and a thread that verifies it.
    pub blobs_max: usize,
    /// Bytes of one range request.
    pub range_bytes: u64,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            hosts_directories: Vec::new(),
            registries_conf: None,
            hub_mirrors: Vec::new(),
            insecure: Vec::new(),
            proxies: Proxies::default(),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
            stall: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(15),
            attempts_max: 6,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            streams_per_blob: 4,
            streams_max: 8,
            blobs_max: 12,
            range_bytes: 8 << 20,
        }
    }
}
