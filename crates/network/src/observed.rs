//! What the kernel says of one endpoint right now: the host's end of its veth, and its entries in the maps of published ports.
//! Reading only; nothing is repaired here.

use std::net::IpAddr;

use crate::config::Endpoint;
use crate::error::NetworkError;
use crate::network::Network;
use crate::port::Protocol;
use crate::{link, nft};

/// The host's end of a container's veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLink {
    pub index: u32,
    /// The bridge it is a port of.
    pub master: Option<String>,
    pub is_up: bool,
    pub mtu: Option<u32>,
}

/// One entry that publishes a port, as it should be, and what the kernel's map has for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPort {
    /// `map published4 of table inet berth`
    pub place: String,
    pub protocol: Protocol,
    /// `None`: every address of the host.
    pub host: Option<IpAddr>,
    pub host_port: u16,
    pub wanted: (IpAddr, u16),
    pub found: Option<(IpAddr, u16)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// `None`: the interface is gone.
    pub link: Option<ObservedLink>,
    pub ports: Vec<ObservedPort>,
}

impl Network {
    /// # Errors
    /// When the kernel refuses the questions themselves.
    pub fn observe(&self, endpoint: &Endpoint) -> Result<Observed, NetworkError> {
        let links = link::list(&mut self.shared.route())?;
        let own = links.iter().find(|link| link.name == endpoint.host_interface);
        let master = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let link = own.map(|link| ObservedLink {
            index: link.index,
            master: link.master.and_then(master),
            is_up: link.is_up,
            mtu: link.mtu,
        });
        let ipv6 = endpoint.ipv6.map(|(address, _, _)| address);
        let mut ports = Vec::new();
        for element in nft::elements(&endpoint.ports, endpoint.ipv4, ipv6) {
            let found = nft::look_up(&mut self.shared.netfilter(), &self.shared.plan.table, &element)?;
            ports.push(element.observed(&self.shared.plan.table, found));
        }
        Ok(Observed { link, ports })
    }
}
