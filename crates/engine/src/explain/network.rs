//! The way of a packet: the interface inside, its address and gateway, the veth's end on the bridge, and the entries that publish ports.

use std::net::Ipv4Addr;

use berth_network::{Endpoint, Observed, ObservedPort, Protocol};

use super::{ExplainLine, Subject};

const SECTION: &str = "network";

pub(super) fn lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let Some(endpoint) = &subject.record.endpoint else { return Vec::new() };
    let mut lines = vec![address(subject, endpoint), gateway(subject, endpoint)];
    match subject
        .engine
        .network()
        .and_then(|network| Ok((network.observe(endpoint)?, network.bridge_name().to_owned())))
    {
        Ok((observed, bridge)) => {
            lines.push(link(endpoint, &observed, &bridge));
            lines.extend(observed.ports.iter().map(port));
        }
        Err(error) => lines.push(ExplainLine {
            section: SECTION,
            object: endpoint.host_interface.clone(),
            drift: Some(format!("the kernel cannot be asked: {error}")),
            ..ExplainLine::default()
        }),
    }
    lines
}

fn network_reason(subject: &Subject<'_>) -> String {
    match subject.record.host.network_mode.as_str() {
        "" | "default" => "default network".to_owned(),
        mode => format!("flag --network {mode}"),
    }
}

fn address(subject: &Subject<'_>, endpoint: &Endpoint) -> ExplainLine {
    let text = subject.proc_text("net/fib_trie").unwrap_or_default();
    let local = local_addresses(&text);
    let is_there = local.contains(&endpoint.ipv4);
    let shown: Vec<String> = local.iter().filter(|ip| !ip.is_loopback()).map(ToString::to_string).collect();
    ExplainLine {
        section: SECTION,
        object: "address".to_owned(),
        asked: Some(format!("{}/{}", endpoint.ipv4, endpoint.ipv4_prefix)),
        in_force: Some(if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }),
        reason: network_reason(subject),
        proof: subject.proc_path("net/fib_trie"),
        drift: (!is_there).then(|| "the address was taken away".to_owned()),
    }
}

/// Addresses that the routing table says are the namespace's own: the line after an address says `/32 host LOCAL`.
fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

fn gateway(subject: &Subject<'_>, endpoint: &Endpoint) -> ExplainLine {
    let found = subject.proc_text("net/route").as_deref().and_then(default_gateway);
    let is_right = found == Some(endpoint.gateway_v4);
    ExplainLine {
        section: SECTION,
        object: "gateway".to_owned(),
        asked: Some(endpoint.gateway_v4.to_string()),
        in_force: Some(found.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string())),
        reason: network_reason(subject),
        proof: subject.proc_path("net/route"),
        drift: (!is_right).then(|| "the default route was changed".to_owned()),
    }
}

/// Destination 0 in a table whose numbers are hexadecimal words of this host's byte order.
fn default_gateway(route: &str) -> Option<Ipv4Addr> {
    route.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (destination, gateway) = (words.next()?, words.next()?);
        let number = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000").then(|| Ipv4Addr::from(number.to_ne_bytes()))
    })
}

fn link(endpoint: &Endpoint, observed: &Observed, bridge: &str) -> ExplainLine {
    let (in_force, drift) = match &observed.link {
        None => (None, Some("the interface was deleted".to_owned())),
        Some(link) => {
            let master = link.master.as_deref();
            let state = if link.is_up { "up" } else { "down" };
            let mtu = link.mtu.map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
            let drift = if master != Some(bridge) {
                Some(format!("it is no port of {bridge} any more"))
            } else {
                (!link.is_up).then(|| "the interface was taken down".to_owned())
            };
            (Some(format!("index {}, port of {}, {state}{mtu}", link.index, master.unwrap_or("nothing"))), drift)
        }
    };
    ExplainLine {
        section: SECTION,
        object: endpoint.host_interface.clone(),
        asked: Some(format!("port of {bridge}, up")),
        in_force,
        reason: format!("the host's end of eth0 ({})", endpoint.mac),
        proof: "rtnetlink RTM_GETLINK, on the host".to_owned(),
        drift,
    }
}

fn port(port: &ObservedPort) -> ExplainLine {
    let protocol = if port.protocol == Protocol::Udp { "udp" } else { "tcp" };
    let host = port.host.map_or_else(|| "*".to_owned(), |address| address.to_string());
    let target = |(address, number): (std::net::IpAddr, u16)| format!("{address} port {number}");
    let drift = match port.found {
        None => Some("the entry was taken away".to_owned()),
        Some(found) if found != port.wanted => Some("it leads elsewhere".to_owned()),
        Some(_) => None,
    };
    ExplainLine {
        section: SECTION,
        object: format!("port {host}:{}/{protocol}", port.host_port),
        asked: Some(target(port.wanted)),
        in_force: port.found.map(target),
        reason: "flag --publish".to_owned(),
        proof: format!("nft, {}", port.place),
        drift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables() {
        let trie = "Main:\n  |-- 0.0.0.0\n     /0 universe UNICAST\n Local:\n  |-- 10.77.0.2\n    /32 host LOCAL\n  |-- 127.0.0.1\n   /32 host LOCAL\n";
        assert_eq!(local_addresses(trie), [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::LOCALHOST]);
        let word = u32::from_ne_bytes([10, 77, 0, 1]);
        let route = format!("Iface Destination Gateway\neth0 00004D0A 00000000 1\neth0 00000000 {word:08X} 3\n");
        assert_eq!(default_gateway(&route), Some(Ipv4Addr::new(10, 77, 0, 1)));
        assert_eq!(default_gateway("Iface\n"), None);
    }

    #[test]
    fn a_port_that_leads_elsewhere() {
        let wanted = ("10.0.0.2".parse().unwrap(), 80);
        let one = |found| {
            port(&ObservedPort {
                place: "map m".to_owned(),
                protocol: Protocol::Tcp,
                host: None,
                host_port: 8080,
                wanted,
                found,
            })
        };
        assert_eq!(one(Some(wanted)).drift, None);
        assert!(one(None).drift.is_some());
        assert_eq!(one(Some(("10.0.0.3".parse().unwrap(), 80))).drift.as_deref(), Some("it leads elsewhere"));
        assert_eq!(one(None).object, "port *:8080/tcp");
    }
}
