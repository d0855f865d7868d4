//! Subnets as the configuration writes them (`172.18.0.0/16`, `fd00:b:e::/64`).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::NetworkError;

/// An IPv4 network: network address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet4 {
    network: u32,
    prefix: u8,
}

impl Subnet4 {
    /// # Errors
    /// `Invalid` unless the prefix leaves room for a gateway and a container, or when host bits are set.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, NetworkError> {
        let subnet = Self { network: address.to_bits(), prefix };
        let reason = if !(8..=30).contains(&prefix) {
            "the prefix length must be between 8 and 30"
        } else if subnet.network & !subnet.mask() != 0 {
            "it is not the first address of the network"
        } else {
            return Ok(subnet);
        };
        Err(NetworkError::Invalid { what: "subnet", value: format!("{address}/{prefix}"), reason })
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask())
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !self.mask())
    }

    /// The first address after the network's own.
    pub fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.network
    }

    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.network & mask == other.network & mask
    }

    /// How many addresses it spans, network and broadcast address included.
    pub(crate) fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    pub(crate) fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | offset)
    }

    pub(crate) fn offset(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| address.to_bits() & !self.mask())
    }

    /// A route of any length, as the kernel lists it; `None` for a default route.
    pub(crate) fn from_route(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (1..=32).contains(&prefix).then(|| {
            let route = Self { network: 0, prefix };
            Self { network: address.to_bits() & route.mask(), prefix }
        })
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }
}

impl FromStr for Subnet4 {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || NetworkError::Invalid {
            what: "subnet",
            value: text.to_owned(),
            reason: "expected an IPv4 network such as 172.18.0.0/16",
        };
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        Self::new(address.parse().map_err(|_| invalid())?, prefix.parse().map_err(|_| invalid())?)
    }
}

impl fmt::Display for Subnet4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

/// An IPv6 network. The host part of a container's address is that of its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet6 {
    network: u128,
    prefix: u8,
}

impl Subnet6 {
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn network(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network)
    }

    pub fn netmask(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.mask())
    }

    pub fn gateway(self) -> Ipv6Addr {
        self.address(1)
    }

    pub(crate) fn address(self, offset: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network | u128::from(offset))
    }

    fn mask(self) -> u128 {
        u128::MAX << (128 - u32::from(self.prefix))
    }
}

impl FromStr for Subnet6 {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| NetworkError::Invalid { what: "subnet", value: text.to_owned(), reason };
        let shape = "expected an IPv6 network such as fd00:b:e::/64";
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid(shape))?;
        let address: Ipv6Addr = address.parse().map_err(|_| invalid(shape))?;
        let subnet = Self { network: address.to_bits(), prefix: prefix.parse().map_err(|_| invalid(shape))? };
        if !(8..=96).contains(&subnet.prefix) {
            return Err(invalid("the prefix length must be between 8 and 96"));
        }
        if subnet.network & !subnet.mask() != 0 {
            return Err(invalid("it is not the first address of the network"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Subnet4 {
        text.parse().unwrap()
    }

    #[test]
    fn parts_of_a_subnet() {
        let subnet = v4("172.18.0.0/16");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 18, 0, 1));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 18, 255, 255));
        assert_eq!(subnet.netmask(), Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(subnet.size(), 65_536);
        assert_eq!(subnet.offset(Ipv4Addr::new(172, 18, 1, 2)), Some(258));
        assert_eq!(subnet.offset(Ipv4Addr::new(172, 19, 0, 2)), None);
        assert_eq!(subnet.to_string(), "172.18.0.0/16");
    }

    #[test]
    fn overlap_is_symmetric() {
        let (wide, inside, beside) = (v4("10.0.0.0/8"), v4("10.1.2.0/24"), v4("11.0.0.0/8"));
        assert!(wide.overlaps(inside) && inside.overlaps(wide));
        assert!(!wide.overlaps(beside) && !beside.overlaps(inside));
        assert_eq!(Subnet4::from_route(Ipv4Addr::UNSPECIFIED, 0), None);
        assert!(Subnet4::from_route(Ipv4Addr::new(10, 1, 2, 3), 32).unwrap().overlaps(inside));
    }

    #[test]
    fn refused_texts() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/31", "10.0.0.0/7", "10.0.0.1/24", "10.0.0/24", "::/64"] {
            assert!(matches!(text.parse::<Subnet4>(), Err(NetworkError::Invalid { .. })), "{text:?}");
        }
        for text in ["", "fd00::", "fd00::1/64", "fd00::/4", "fd00::/97", "10.0.0.0/8"] {
            assert!(matches!(text.parse::<Subnet6>(), Err(NetworkError::Invalid { .. })), "{text:?}");
        }
    }

    #[test]
    fn ipv6_follows_the_ipv4_host_part() {
        let subnet: Subnet6 = "fd00:b:e::/64".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "fd00:b:e::1");
        assert_eq!(subnet.address(0x0102).to_string(), "fd00:b:e::102");
        assert_eq!(subnet.netmask().to_string(), "ffff:ffff:ffff:ffff::");
    }
}
