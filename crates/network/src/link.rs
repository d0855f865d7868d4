//! Links, addresses and routes over rtnetlink.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::NetworkError;
use crate::netlink::message::{ACK, CREATE, EXCLUSIVE, REPLACE};
use crate::netlink::{AttributeReader, Attributes, Batch, Socket, Step};
use crate::subnet::{Subnet4, Subnet6};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const LOOPBACK_INDEX: u32 = 1;
const LINK_HEADER_LEN: usize = 16;
const ADDRESS_HEADER_LEN: usize = 8;
const ROUTE_HEADER_LEN: usize = 12;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

pub(crate) type Mac = [u8; 6];

/// `ifinfomsg`: family, padding, type, index, flags, change mask.
fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `ifaddrmsg`: family, prefix length, flags, scope, index.
fn address_header(family: u8, prefix: u8, flags: u8, index: u32) -> [u8; ADDRESS_HEADER_LEN] {
    let mut header = [family, prefix, flags, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// `rtmsg`: family, destination and source length, tos, table, protocol, scope, type, flags.
fn route_header(family: u8) -> [u8; ROUTE_HEADER_LEN] {
    [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0]
}

pub(crate) fn set_loopback_up(socket: &mut Socket) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    batch.push(Step::new("bring up", "lo"), RTM_NEWLINK, ACK, &link_header(LOOPBACK_INDEX, IFF_UP), |_| {});
    socket.execute(batch)
}

/// What we want to know of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) alias: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// Index of the bridge it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) is_up: bool,
}

impl Link {
    fn parse(body: &[u8]) -> Option<Self> {
        let attributes = AttributeReader::after(body, LINK_HEADER_LEN);
        Some(Self {
            index: u32::from_ne_bytes(*body.get(4..)?.first_chunk()?),
            name: attributes.string(IFLA_IFNAME)?,
            kind: attributes.nested(IFLA_LINKINFO).and_then(|info| info.string(IFLA_INFO_KIND)),
            alias: attributes.string(IFLA_IFALIAS),
            mtu: attributes.u32(IFLA_MTU),
            master: attributes.u32(IFLA_MASTER),
            is_up: u32::from_ne_bytes(*body.get(8..)?.first_chunk()?) & IFF_UP != 0,
        })
    }
}

pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetworkError> {
    let mut batch = Batch::default();
    batch.push(Step::new("look up interface", name), RTM_GETLINK, 0, &link_header(0, 0), |message| {
        message.string(IFLA_IFNAME, name);
    });
    Ok(socket.get(batch)?.and_then(|body| Link::parse(&body)))
}

pub(crate) fn list(socket: &mut Socket) -> Result<Vec<Link>, NetworkError> {
    let mut links = Vec::new();
    socket.dump(Step::new("list", "interfaces"), RTM_GETLINK, &link_header(0, 0), |body| {
        links.extend(Link::parse(body));
    })?;
    Ok(links)
}

pub(crate) fn delete(socket: &mut Socket, link: &Link) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    let step = Step::new("delete interface", &link.name);
    batch.push(step, RTM_DELLINK, ACK, &link_header(link.index, 0), |_| {});
    socket.execute(batch)
}

/// A bridge to be made; it is left down, so that its settings can be written before the first packet.
#[derive(Debug)]
pub(crate) struct BridgeSpec<'a> {
    pub(crate) name: &'a str,
    /// Marks it as ours.
    pub(crate) alias: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
}

pub(crate) fn create_bridge(socket: &mut Socket, spec: &BridgeSpec<'_>) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    let step = Step::new("create bridge", spec.name);
    batch.push(step, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0), |message| {
        message.string(IFLA_IFNAME, spec.name);
        message.bytes(IFLA_ADDRESS, &spec.mac);
        message.u32(IFLA_MTU, spec.mtu);
        message.nested(IFLA_LINKINFO, |info| info.string(IFLA_INFO_KIND, "bridge"));
    });
    // The kernel takes no alias at creation.
    let step = Step::new("mark bridge", spec.name);
    batch.push(step, RTM_NEWLINK, ACK, &link_header(0, 0), |message| {
        message.string(IFLA_IFNAME, spec.name);
        message.bytes(IFLA_IFALIAS, spec.alias.as_bytes());
    });
    socket.execute(batch)
}

pub(crate) fn set_up(socket: &mut Socket, link: &Link) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    push_up(&mut batch, link);
    socket.execute(batch)
}

fn push_up(batch: &mut Batch, link: &Link) {
    let step = Step::new("bring up", &link.name);
    batch.push(step, RTM_NEWLINK, ACK, &link_header(link.index, IFF_UP), |_| {});
}

/// A veth pair: one end a port of the bridge, the other `eth0` of a container.
#[derive(Debug)]
pub(crate) struct VethSpec<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge_index: u32,
    pub(crate) container_mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) namespace: BorrowedFd<'a>,
}

/// Makes the pair, its inner end at once in the container's namespace under its final name, the outer one up and on the
/// bridge: one message. A second one lets the port send back what came in by it, which packets need that
/// `br_netfilter` rewrites while they are still on the bridge (a container calling its own published port).
pub(crate) fn create_veth(socket: &mut Socket, spec: &VethSpec<'_>) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    let step = Step::new("create veth", spec.host_name);
    batch.push(step, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &link_header(0, IFF_UP), |message| {
        message.string(IFLA_IFNAME, spec.host_name);
        message.u32(IFLA_MASTER, spec.bridge_index);
        end_of_veth(message, spec.mtu);
        message.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    // Not up yet: the kernel opens this end before it knows the other, and refuses.
                    peer.header(&link_header(0, 0));
                    peer.string(IFLA_IFNAME, "eth0");
                    peer.bytes(IFLA_NET_NS_FD, &spec.namespace.as_raw_fd().to_ne_bytes());
                    peer.bytes(IFLA_ADDRESS, &spec.container_mac);
                    end_of_veth(peer, spec.mtu);
                });
            });
        });
    });
    let step = Step::new("set hairpin mode of", spec.host_name);
    batch.push(step, RTM_NEWLINK, ACK, &link_header(0, 0), |message| {
        message.string(IFLA_IFNAME, spec.host_name);
        message.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_SLAVE_KIND, "bridge");
            info.nested(IFLA_INFO_SLAVE_DATA, |data| data.u8(IFLA_BRPORT_MODE, 1));
        });
    });
    socket.execute(batch)
}

/// One queue is what a veth uses; the default reserves one for each possible processor.
fn end_of_veth(message: &mut Attributes<'_>, mtu: u32) {
    message.u32(IFLA_MTU, mtu);
    message.u32(IFLA_NUM_TX_QUEUES, 1);
    message.u32(IFLA_NUM_RX_QUEUES, 1);
}

/// What a container's interface is to have.
#[derive(Debug)]
pub(crate) struct InterfaceAddresses {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) subnet4: Subnet4,
    pub(crate) ipv6: Option<(Ipv6Addr, Subnet6)>,
}

/// Brings the interface up with its addresses and default routes, in one datagram.
pub(crate) fn configure_container(
    socket: &mut Socket,
    link: &Link,
    addresses: &InterfaceAddresses,
) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    push_up(&mut batch, link);
    add_address4(&mut batch, link, addresses.ipv4, addresses.subnet4, EXCLUSIVE);
    default_route(&mut batch, link, AF_INET, &addresses.subnet4.gateway().octets());
    if let Some((ipv6, subnet6)) = addresses.ipv6 {
        add_address6(&mut batch, link, ipv6, subnet6, EXCLUSIVE);
        default_route(&mut batch, link, AF_INET6, &subnet6.gateway().octets());
    }
    socket.execute(batch)
}

/// Gives the bridge its addresses; those it has already stay.
pub(crate) fn configure_bridge(
    socket: &mut Socket,
    link: &Link,
    subnet4: Subnet4,
    subnet6: Option<Subnet6>,
) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    add_address4(&mut batch, link, subnet4.gateway(), subnet4, REPLACE);
    if let Some(subnet6) = subnet6 {
        add_address6(&mut batch, link, subnet6.gateway(), subnet6, REPLACE);
    }
    socket.execute(batch)
}

fn add_address4(batch: &mut Batch, link: &Link, address: Ipv4Addr, subnet: Subnet4, flag: u16) {
    let step = Step::new("add address", format!("{address}/{} to {}", subnet.prefix(), link.name));
    let header = address_header(AF_INET, subnet.prefix(), 0, link.index);
    batch.push(step, RTM_NEWADDR, ACK | CREATE | flag, &header, |message| {
        message.ipv4(IFA_LOCAL, address);
        message.ipv4(IFA_ADDRESS, address);
        message.ipv4(IFA_BROADCAST, subnet.broadcast());
    });
}

/// Without duplicate address detection: we gave the address out ourselves, and it would be unusable for a second.
fn add_address6(batch: &mut Batch, link: &Link, address: Ipv6Addr, subnet: Subnet6, flag: u16) {
    let step = Step::new("add address", format!("{address}/{} to {}", subnet.prefix(), link.name));
    let header = address_header(AF_INET6, subnet.prefix(), IFA_F_NODAD, link.index);
    batch.push(step, RTM_NEWADDR, ACK | CREATE | flag, &header, |message| {
        message.ipv6(IFA_LOCAL, address);
        message.ipv6(IFA_ADDRESS, address);
    });
}

fn default_route(batch: &mut Batch, link: &Link, family: u8, gateway: &[u8]) {
    let step = Step::new("add default route", format!("by {}", link.name));
    batch.push(step, RTM_NEWROUTE, ACK | CREATE | EXCLUSIVE, &route_header(family), |message| {
        message.bytes(RTA_GATEWAY, gateway);
        message.u32(RTA_OIF, link.index);
    });
}

/// IPv4 addresses of one interface.
pub(crate) fn addresses4(socket: &mut Socket, link: &Link) -> Result<Vec<(Ipv4Addr, u8)>, NetworkError> {
    let mut found = Vec::new();
    let step = Step::new("list addresses of", &link.name);
    socket.dump(step, RTM_GETADDR, &address_header(AF_INET, 0, 0, 0), |body| {
        let index = body.get(4..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes));
        let local = AttributeReader::after(body, ADDRESS_HEADER_LEN).find(IFA_LOCAL);
        if let (Some(index), Some(prefix), Some(local)) = (index, body.get(1), local.and_then(|it| it.first_chunk()))
            && index == link.index
        {
            found.push((Ipv4Addr::from(*local), *prefix));
        }
    })?;
    Ok(found)
}

pub(crate) fn remove_address4(
    socket: &mut Socket,
    link: &Link,
    (address, prefix): (Ipv4Addr, u8),
) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    let step = Step::new("remove address", format!("{address}/{prefix} from {}", link.name));
    batch.push(step, RTM_DELADDR, ACK, &address_header(AF_INET, prefix, 0, link.index), |message| {
        message.ipv4(IFA_LOCAL, address);
    });
    socket.execute(batch)
}

/// An IPv4 route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None`: a default route.
    pub(crate) destination: Option<Subnet4>,
    pub(crate) interface: u32,
}

pub(crate) fn routes4(socket: &mut Socket) -> Result<Vec<Route>, NetworkError> {
    let mut routes = Vec::new();
    let mut header = route_header(AF_INET);
    header[4..8].fill(0);
    socket.dump(Step::new("list", "routes"), RTM_GETROUTE, &header, |body| {
        let attributes = AttributeReader::after(body, ROUTE_HEADER_LEN);
        let (Some(prefix), Some(&table), Some(interface)) = (body.get(1), body.get(4), attributes.u32(RTA_OIF)) else {
            return;
        };
        if table != RT_TABLE_MAIN || body.first() != Some(&AF_INET) {
            return;
        }
        let address = attributes.find(RTA_DST).and_then(|bytes| bytes.first_chunk::<4>().copied()).unwrap_or_default();
        routes.push(Route { destination: Subnet4::from_route(address.into(), *prefix), interface });
    })?;
    Ok(routes)
}
