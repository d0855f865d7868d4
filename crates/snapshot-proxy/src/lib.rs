//! External snapshotters: processes that serve containerd's snapshots API on a unix socket (stargz, nydus, fuse-overlayfs, AUFS, another
//! containerd). What they keep is used in two ways:
//!
//! - [`ProxySnapshotter`]: their snapshots as a [`berth_snapshot::Snapshotter`], for clients of the containerd API that name it;
//! - [`ProxyDriver`]: as the engine's own way to keep layers and writable layers, a [`berth_snapshot::Driver`].
//!
//! The wire's types stay in here. One thread per snapshotter does the I/O, so calls may come from any thread.

mod connection;
mod driver;
mod mounts;
mod settings;
mod snapshotter;

use std::sync::Arc;

use berth_snapshot::SnapshotError;
use connection::Connection;
pub use driver::ProxyDriver;
pub use mounts::mount;
pub use settings::ProxySettings;
pub use snapshotter::ProxySnapshotter;

type Result<T> = std::result::Result<T, SnapshotError>;

/// A connection to an external snapshotter, made when it is first needed and again when it broke.
#[derive(Debug, Clone)]
pub struct Proxy {
    connection: Arc<Connection>,
}

impl Proxy {
    /// # Errors
    /// `InvalidArgument` for an address that is none; when its thread cannot be started. That nobody listens is found at the first call.
    pub fn new(settings: ProxySettings) -> Result<Self> {
        Ok(Self { connection: Arc::new(Connection::new(settings)?) })
    }

    pub fn name(&self) -> &str {
        &self.connection.settings().name
    }

    pub fn settings(&self) -> &ProxySettings {
        self.connection.settings()
    }

    /// Its snapshots whose keys begin with a prefix, which is not seen: several users of one snapshotter do not meet.
    pub fn snapshots(&self, prefix: &str) -> ProxySnapshotter {
        ProxySnapshotter::new(Arc::clone(&self.connection), prefix)
    }

    pub fn driver(&self) -> ProxyDriver {
        ProxyDriver::new(self.snapshots(""))
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// `Unavailable` when it does not, or another class when it refuses.
    pub fn probe(&self) -> Result<()> {
        use berth_snapshot::Snapshotter as _;
        match self.snapshots("").stat("berth-probe") {
            Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::NotFound => Ok(()),
            other => other.map(drop),
        }
    }
}
