//! The default network: one bridge, veth pairs, addresses, and one nftables table of ours, all spoken over netlink.
//! Synchronous; callers in the daemon use a blocking thread of their own. SEAM (stub) used by `engine`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

#[derive(Debug, Clone)]
pub struct NetworkConfig {
    pub bridge_name: String,
    /// `172.18.0.0/16`; the first address is the gateway.
    pub ipv4_subnet: String,
    /// ULA prefix when IPv6 is wanted and the host has it.
    pub ipv6_subnet: Option<String>,
    pub nft_table: String,
    /// Network namespace to work in; None: the process's own (tests use their own).
    pub host_netns: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One published port in force (ranges are expanded by the caller).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    /// None: every address.
    pub host_ip: Option<IpAddr>,
    /// 0: pick a free one.
    pub host_port: u16,
    pub container_port: u16,
}

/// What a container got; kept by the caller with the container and given back to `restore` and `detach`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    pub container_id: String,
    pub mac: String,
    pub ipv4: Ipv4Addr,
    pub ipv4_prefix: u8,
    pub gateway_v4: Ipv4Addr,
    pub ipv6: Option<(Ipv6Addr, u8, Ipv6Addr)>,
    pub ports: Vec<PortMapping>,
    pub host_interface: String,
}

#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct NetworkError;

/// The bridge network of a daemon. `&self` methods are safe from several threads.
#[derive(Debug)]
pub struct Network {
    _private: (),
}

impl Network {
    /// Makes bridge and table where missing (idempotent), forgets all endpoints; `restore` brings back the live ones.
    pub fn open(_config: NetworkConfig) -> Result<Self, NetworkError> {
        Err(NetworkError)
    }
    /// A new network namespace with `lo` up, kept alive by the returned descriptor only (`--network none`).
    pub fn new_netns() -> Result<OwnedFd, NetworkError> {
        Err(NetworkError)
    }
    /// Namespace with `lo`, `eth0` on the bridge, routes, and the asked ports published. On error nothing is left.
    pub fn attach(
        &self,
        _container_id: &str,
        _ports: &[PortMapping],
        _mac: Option<&str>,
    ) -> Result<(OwnedFd, Endpoint), NetworkError> {
        Err(NetworkError)
    }
    pub fn restore(&self, _endpoint: &Endpoint) -> Result<(), NetworkError> {
        Err(NetworkError)
    }
    /// Unpublishes ports and frees the address; the veth dies with its namespace, off the path.
    pub fn detach(&self, _endpoint: &Endpoint) -> Result<(), NetworkError> {
        Err(NetworkError)
    }
    /// Removes bridge and table (private instances, tests).
    pub fn destroy(&self) -> Result<(), NetworkError> {
        Err(NetworkError)
    }
    pub fn id(&self) -> String {
        String::new()
    }
}
