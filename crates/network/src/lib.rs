//! The default network: one bridge, veth pairs, addresses, and one nftables table of ours, all spoken over netlink.
//!
//! Synchronous; callers in the daemon use a blocking thread of their own. No program is executed (no `ip`, `nft` or
//! `iptables`), no proxy process stands behind a published port, and no thread of the caller changes its namespace.
//!
//! ```text
//! config   what is asked, what a container gets      subnet address port   plain bookkeeping
//! network  the operations                            netlink               bytes and sockets
//! bridge sandbox pool namespace housekeeper          link nft conntrack    what the messages mean
//! ```
//!
//! What is not here: DNS, user-defined networks, CNI, and the userland proxy other engines use to answer on `::1`.

mod address;
mod bridge;
mod config;
mod conntrack;
mod error;
mod housekeeper;
mod link;
mod namespace;
mod namespace_pool;
mod netlink;
mod network;
mod nft;
mod observed;
mod pool;
mod port;
mod port_holder;
mod sandbox;
mod subnet;
mod sysctl;

pub use config::{Endpoint, NetworkConfig};
pub use error::NetworkError;
pub use namespace::loopback_up;
pub use namespace_pool::NamespacePool;
pub use network::{Network, free_subnet};
pub use observed::{Observed, ObservedLink, ObservedPort};
pub use port::{PortMapping, Protocol};
pub use subnet::{Subnet4, Subnet6};
