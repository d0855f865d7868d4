//! Published ports: Docker's bindings, expanded to single mappings.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_network::{PortMapping, Protocol};

use super::PortRequest;
use super::namespaces::{NamespaceModes, NetworkMode};
use crate::config::{ContainerConfig, HostConfig, PortBinding};
use crate::error::{EngineError, Result};

/// Mappings per container; a full range of both protocols.
const MAPPINGS_MAX: usize = 2 * 65_536;

pub(crate) fn parse(
    config: &ContainerConfig,
    host: &HostConfig,
    namespaces: &NamespaceModes,
    warnings: &mut Vec<String>,
) -> Result<Vec<PortRequest>> {
    let mut wanted: BTreeMap<(Protocol, u16), Vec<PortBinding>> = BTreeMap::new();
    for (port, bindings) in &host.port_bindings {
        for container_port in container_ports(port)? {
            wanted.entry(container_port).or_default().extend(bindings.iter().cloned());
        }
    }
    for port in &config.exposed_ports {
        for container_port in container_ports(port)? {
            if host.publish_all_ports {
                wanted.entry(container_port).or_insert_with(|| vec![PortBinding::default()]);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    match &namespaces.network {
        NetworkMode::Bridge => {}
        NetworkMode::None => {
            return Err(EngineError::invalid("conflicting options: port publishing and network none")
                .with_hint("leave out -p, or use --network bridge"));
        }
        NetworkMode::Joined(super::namespaces::NsMode::Host) => {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
            return Ok(Vec::new());
        }
        NetworkMode::Joined(_) => {
            return Err(EngineError::invalid(
                "conflicting options: port publishing and the container type network mode",
            )
            .with_hint("publish the ports on the container whose network is joined"));
        }
    }
    expand(&wanted)
}

fn expand(wanted: &BTreeMap<(Protocol, u16), Vec<PortBinding>>) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (&(protocol, container_port), bindings) in wanted {
        let default = [PortBinding::default()];
        let bindings = if bindings.is_empty() { &default[..] } else { bindings };
        for binding in bindings {
            let host_ip = host_ip(&binding.host_ip)?;
            let (first, last) = range(&binding.host_port, "host port")
                .map_err(|error| error.while_doing(format!("invalid publish of container port {container_port}")))?;
            let mapping = PortMapping { protocol, host_ip, host_port: first, container_port };
            let request = PortRequest { mapping, last_host_port: last };
            if !requests.contains(&request) {
                requests.push(request);
            }
        }
    }
    check_twice(&requests)?;
    if requests.len() > MAPPINGS_MAX {
        return Err(EngineError::invalid(format!("more than {MAPPINGS_MAX} ports to publish")));
    }
    Ok(requests)
}

/// One host port cannot lead to two ports of the container. Ranges and free ports find another.
fn check_twice(requests: &[PortRequest]) -> Result<()> {
    let mut seen: BTreeMap<(Protocol, Option<IpAddr>, u16), u16> = BTreeMap::new();
    for PortRequest { mapping, last_host_port } in requests {
        if mapping.host_port == 0 || *last_host_port != mapping.host_port {
            continue;
        }
        let place = (mapping.protocol, mapping.host_ip, mapping.host_port);
        if let Some(other) = seen.insert(place, mapping.container_port) {
            return Err(EngineError::invalid(format!(
                "host port {} is to be published twice, for container ports {other} and {}",
                mapping.host_port, mapping.container_port
            ))
            .with_hint("give each container port a host port of its own"));
        }
    }
    Ok(())
}

fn host_ip(text: &str) -> Result<Option<IpAddr>> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare {
        "" => Ok(None),
        bare => bare.parse().map(Some).map_err(|_| {
            EngineError::invalid(format!("invalid IP address {text:?} to publish on"))
                .with_hint("as in -p 127.0.0.1:8080:80")
        }),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn container_ports(text: &str) -> Result<Vec<(Protocol, u16)>> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => {
            return Err(EngineError::unimplemented(format!("port {text:?}: sctp is not supported yet"))
                .with_hint("use tcp or udp"));
        }
        other => {
            return Err(EngineError::invalid(format!("invalid protocol {other:?} of port {text:?}"))
                .with_hint("use tcp or udp"));
        }
    };
    let (first, last) = range(numbers, "container port")?;
    if first == 0 {
        return Err(EngineError::invalid(format!("invalid container port {text:?}: ports are 1 to 65535")));
    }
    Ok((first..=last).map(|port| (protocol, port)).collect())
}

/// A port or a range; empty is 0 (any).
fn range(text: &str, what: &str) -> Result<(u16, u16)> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let number = |text: &str| {
        (text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
            .ok_or_else(|| EngineError::invalid(format!("invalid {what}: {text:?} (valid are 1 to 65535)")))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(EngineError::invalid(format!("invalid {what} range {text:?}: it ends before it begins")));
    }
    Ok((first, last))
}
