//! Empty network namespaces made in advance, for containers with `--network none`.

use std::os::fd::OwnedFd;

use crate::error::NetworkError;
use crate::namespace::{self, Ipv6};
use crate::network::Network;
use crate::pool::Pool;

/// Namespaces with `lo` up, each handed out once. Its thread starts with the first `take`.
#[derive(Debug)]
pub struct NamespacePool {
    pool: Pool<OwnedFd>,
}

impl NamespacePool {
    pub fn new(size: usize) -> Self {
        Self { pool: Pool::new(size) }
    }

    /// Starts making them.
    pub fn prepare(&self) -> Result<(), NetworkError> {
        self.pool.start(|| {
            let home = namespace::current()?;
            Ok(move || {
                let made = namespace::enter_new(Ipv6::LoopbackOnly);
                // The thread must not keep the namespace alive after the container has gone.
                namespace::enter(&home)?;
                made.map(|new| new.fd)
            })
        })
    }

    /// One that is ready, or else one made on the spot.
    pub fn take(&self) -> Result<OwnedFd, NetworkError> {
        self.prepare()?;
        self.pool.take().map_or_else(Network::new_netns, Ok)
    }

    /// How many are ready.
    pub fn prepared(&self) -> usize {
        self.pool.len()
    }
}
