//! The bridge in the host's namespace, with the settings that routing for containers needs.
//!
//! Host-wide we change only what no bridge works without: `net.ipv4.ip_forward`, and with IPv6
//! `net.ipv6.conf.all.forwarding`. Everything else is set on the bridge alone.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::config::mac_of;
use crate::error::NetworkError;
use crate::link::{self, BridgeSpec, Link};
use crate::netlink::Socket;
use crate::nft::ruleset::Ruleset;
use crate::subnet::Subnet4;
use crate::sysctl;

const MTU_DEFAULT: u32 = 1500;
/// What IPv6 demands of every link.
const MTU_LEAST: u32 = 1280;

/// The bridge as it is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// Makes the bridge, or takes over the one an earlier daemon left. Call it on a thread of the host's namespace.
pub(crate) fn ensure(socket: &mut Socket, plan: &Ruleset) -> Result<Bridge, NetworkError> {
    if let Some(interface) = route_conflict(socket, plan.subnet4, &plan.bridge)? {
        return Err(NetworkError::SubnetTaken { subnet: plan.subnet4.to_string(), interface });
    }
    let alias = alias(plan);
    let found = link::find(socket, &plan.bridge)?;
    let link = if let Some(link) = found {
        if !is_ours(&link, &alias) {
            return Err(NetworkError::ForeignBridge { name: link.name });
        }
        remove_other_addresses(socket, &link, plan.subnet4)?;
        link
    } else {
        let mtu = uplink_mtu(socket)?;
        let mac = mac_of(plan.subnet4.gateway());
        link::create_bridge(socket, &BridgeSpec { name: &plan.bridge, alias: &alias, mac, mtu })?;
        link::find(socket, &plan.bridge)?.ok_or_else(|| NetworkError::Kernel {
            action: "find the bridge just made",
            object: plan.bridge.clone(),
            message: None,
            source: rustix::io::Errno::NODEV,
        })?
    };
    write_settings(plan)?;
    link::configure_bridge(socket, &link, plan.subnet4, plan.subnet6)?;
    link::set_up(socket, &link)?;
    Ok(Bridge { index: link.index, mtu: link.mtu.unwrap_or(MTU_DEFAULT) })
}

/// Removes the bridge if it is ours; what was plugged into it loses its network.
pub(crate) fn remove(socket: &mut Socket, plan: &Ruleset) -> Result<(), NetworkError> {
    match link::find(socket, &plan.bridge)? {
        Some(link) if is_ours(&link, &alias(plan)) => link::delete(socket, &link),
        _ => Ok(()),
    }
}

/// The interface by which some part of `subnet` is already reached. Wider routes do not count: ours is more specific.
pub(crate) fn route_conflict(
    socket: &mut Socket,
    subnet: Subnet4,
    own_bridge: &str,
) -> Result<Option<String>, NetworkError> {
    let routes = link::routes4(socket)?;
    let links = link::list(socket)?;
    let name_of = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(routes
        .into_iter()
        .filter(|route| route.destination.is_some_and(|to| to.prefix() >= subnet.prefix() && to.overlaps(subnet)))
        .filter_map(|route| name_of(route.interface))
        .find(|name| name != own_bridge))
}

/// Written on the interface, where `ip -d link` shows it: whose bridge this is.
fn alias(plan: &Ruleset) -> String {
    format!("berth network, nftables table {}", plan.table)
}

fn is_ours(link: &Link, alias: &str) -> bool {
    link.kind.as_deref() == Some("bridge") && link.alias.as_deref() == Some(alias)
}

fn remove_other_addresses(socket: &mut Socket, link: &Link, subnet: Subnet4) -> Result<(), NetworkError> {
    let ours: (Ipv4Addr, u8) = (subnet.gateway(), subnet.prefix());
    for address in link::addresses4(socket, link)? {
        if address != ours {
            link::remove_address4(socket, link, address)?;
        }
    }
    Ok(())
}

/// The smallest MTU among the ways out, so that a tunnel or a cloud network with less than 1500 does not swallow large
/// packets.
fn uplink_mtu(socket: &mut Socket) -> Result<u32, NetworkError> {
    let routes = link::routes4(socket)?;
    let links = link::list(socket)?;
    let uplinks = routes.iter().filter(|route| route.destination.is_none()).map(|route| route.interface);
    let smallest = uplinks
        .filter_map(|index| links.iter().find(|link| link.index == index).and_then(|link| link.mtu))
        .min()
        .unwrap_or(MTU_DEFAULT);
    Ok(smallest.clamp(MTU_LEAST, MTU_DEFAULT))
}

fn write_settings(plan: &Ruleset) -> Result<(), NetworkError> {
    let net = Path::new("/proc/sys/net");
    let bridge4 = net.join("ipv4/conf").join(&plan.bridge);
    // Lets the host reach what is published on 127.0.0.1; the chain `guard` closes what it would open.
    sysctl::ensure(&bridge4.join("route_localnet"), "1")?;
    sysctl::ensure(&net.join("ipv4/ip_forward"), "1")?;
    if !sysctl::has_ipv6() {
        return Ok(());
    }
    let bridge6 = net.join("ipv6/conf").join(&plan.bridge);
    // A container that advertises itself as a router must not become the host's.
    sysctl::ensure(&bridge6.join("accept_ra"), "0")?;
    sysctl::ensure(&bridge6.join("disable_ipv6"), if plan.subnet6.is_some() { "0" } else { "1" })?;
    if plan.subnet6.is_some() {
        forward_ipv6(&net.join("ipv6/conf"))?;
    }
    Ok(())
}

/// A host that forwards ignores router advertisements unless told otherwise; one that got its route from them keeps it.
fn forward_ipv6(conf: &Path) -> Result<(), NetworkError> {
    if sysctl::read(&conf.join("all/forwarding")).as_deref() == Some("1") {
        return Ok(());
    }
    let entries = std::fs::read_dir(conf).map_err(|source| NetworkError::Read { path: conf.to_owned(), source })?;
    for entry in entries.flatten() {
        let accept = entry.path().join("accept_ra");
        if sysctl::read(&accept).as_deref() == Some("1") {
            sysctl::write(&accept, "2")?;
        }
    }
    sysctl::write(&conf.join("all/forwarding"), "1")
}
