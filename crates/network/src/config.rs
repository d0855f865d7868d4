//! What the caller asks for and what a container gets: plain data.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::error::NetworkError;
use crate::link::Mac;
use crate::nft::ruleset::Ruleset;
use crate::port::PortMapping;

#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// At most 15 bytes. A bridge of that name that is not ours is refused.
    pub bridge_name: String,
    /// `172.18.0.0/16`; the first address is the gateway.
    pub ipv4_subnet: String,
    /// ULA prefix when IPv6 is wanted; ignored where the host has no IPv6.
    pub ipv6_subnet: Option<String>,
    pub nft_table: String,
    /// Network namespace to work in; None: the process's own (tests use their own).
    pub host_netns: Option<PathBuf>,
}

impl NetworkConfig {
    pub(crate) fn parse(&self, host_has_ipv6: bool) -> Result<Ruleset, NetworkError> {
        Ok(Ruleset {
            table: name("table name", &self.nft_table, 63)?,
            bridge: name("bridge name", &self.bridge_name, 15)?,
            subnet4: self.ipv4_subnet.parse()?,
            subnet6: self.ipv6_subnet.as_deref().filter(|_| host_has_ipv6).map(str::parse).transpose()?,
        })
    }
}

/// Names go into paths below `/proc/sys` and into nf_tables: letters, digits, `-` and `_`, a letter first.
fn name(what: &'static str, value: &str, length_max: usize) -> Result<String, NetworkError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let reason = if value.len() > length_max {
        "it is too long"
    } else if !value.starts_with(|first: char| first.is_ascii_alphabetic()) {
        "it must start with a letter"
    } else if !value.bytes().all(plain) {
        "only letters, digits, - and _ are allowed"
    } else if value == "default" || value == "all" {
        "the kernel uses this name for something else"
    } else {
        return Ok(value.to_owned());
    };
    Err(NetworkError::Invalid { what, value: value.to_owned(), reason })
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
    /// As asked, with the ports that were left to us filled in.
    pub ports: Vec<PortMapping>,
    pub host_interface: String,
}

/// The usual address of a container's interface: locally administered, with the IPv4 address in it, so that a neighbour's
/// ARP cache is right also when the address has gone to another container.
pub(crate) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

pub(crate) fn parse_mac(text: &str) -> Result<Mac, NetworkError> {
    let invalid = |reason| NetworkError::Invalid { what: "MAC address", value: text.to_owned(), reason };
    let shape = "expected six pairs of hexadecimal digits such as 02:42:ac:12:00:02";
    let mut mac = Mac::default();
    let mut parts = text.split([':', '-']);
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        *octet = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(|| invalid(shape))?;
    }
    if parts.next().is_some() {
        return Err(invalid(shape));
    }
    if mac[0] & 1 != 0 || mac == Mac::default() {
        return Err(invalid("it must be the address of one interface"));
    }
    Ok(mac)
}

pub(crate) fn format_mac([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(format_mac(mac_of(Ipv4Addr::new(172, 18, 0, 2))), "02:42:ac:12:00:02");
        assert_eq!(parse_mac("02-42-AC-12-00-02").unwrap(), mac_of(Ipv4Addr::new(172, 18, 0, 2)));
        for text in ["", "02:42", "02:42:ac:12:00:02:03", "01:00:5e:00:00:01", "00:00:00:00:00:00", "+2:42:ac:12:00:02"]
        {
            assert!(matches!(parse_mac(text), Err(NetworkError::Invalid { .. })), "{text:?}");
        }
    }

    #[test]
    fn names_that_are_refused() {
        for bad in ["", "0berth", "a/b", "..", "berth 0", "default", "a234567890123456"] {
            assert!(matches!(name("bridge name", bad, 15), Err(NetworkError::Invalid { .. })), "{bad:?}");
        }
        assert_eq!(name("bridge name", "berth-0_a", 15).unwrap(), "berth-0_a");
    }
}
