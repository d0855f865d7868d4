//! What our table says, as data: pure, so that it can be compared in a test and sent again when somebody flushed it.
//!
//! ```text
//! table inet NAME {
//!   map published4        l4proto . dport          -> address . port      every address of the host
//!   map published4_at     daddr . l4proto . dport  -> address . port      one address
//!   map published6, published6_at                                         the same for IPv6
//!   chain guard        filter prerouting raw     from the bridge to 127.0.0.0/8: drop
//!   chain prerouting   nat    prerouting dstnat  to us: rewrite by the maps (never for 127.0.0.0/8 from outside)
//!   chain output       nat    output dstnat      the same for programs of the host
//!   chain postrouting  nat    postrouting srcnat from the subnet to elsewhere, back to the bridge, from loopback: masquerade
//!   chain forward      filter forward filter     to the bridge: from it, answers, published; drop what is left
//! }
//! ```
//!
//! Publishing a port is one element in a map; no rule is ever added or searched in a list.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::expression::Expression::{
    self, Destination4, Destination6, DestinationIsLocal, DestinationRewritten, EstablishedOrRelated, InputInterface,
    Masquerade, NotOutputInterface, OutputInterface, RewriteByMap, Source4, Source6,
};
use super::expression::{Verdict, Version};
use crate::subnet::{Subnet4, Subnet6};

/// Where a chain hooks in: nf_tables type, hook number, priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Vec<Expression>>,
}

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);
const LOOPBACK_MASK: Ipv4Addr = Ipv4Addr::new(255, 0, 0, 0);

/// The maps of published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortMap {
    Any4,
    At4,
    Any6,
    At6,
}

impl PortMap {
    pub(crate) const ALL: [Self; 4] = [Self::Any4, Self::At4, Self::Any6, Self::At6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any4 => "published4",
            Self::At4 => "published4_at",
            Self::Any6 => "published6",
            Self::At6 => "published6_at",
        }
    }

    pub(crate) fn version(self) -> Version {
        match self {
            Self::Any4 | Self::At4 => Version::V4,
            Self::Any6 | Self::At6 => Version::V6,
        }
    }

    pub(crate) fn by_address(self) -> bool {
        matches!(self, Self::At4 | Self::At6)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) table: String,
    pub(crate) bridge: String,
    pub(crate) subnet4: Subnet4,
    pub(crate) subnet6: Option<Subnet6>,
}

impl Ruleset {
    pub(crate) fn chains(&self) -> Vec<Chain> {
        vec![
            Chain {
                name: "guard",
                kind: "filter",
                hook: PREROUTING,
                priority: PRIORITY_RAW,
                rules: vec![self.guard()],
            },
            Chain {
                name: "prerouting",
                kind: "nat",
                hook: PREROUTING,
                priority: PRIORITY_DSTNAT,
                // A neighbour that sends us packets for 127.0.0.1 must not reach what is published there only.
                rules: rewrite(vec![
                    Expression::Version(Version::V4),
                    loopback(),
                    Expression::Verdict(Verdict::Return),
                ]),
            },
            Chain {
                name: "output",
                kind: "nat",
                hook: OUTPUT,
                priority: PRIORITY_DSTNAT,
                // A packet from ::1 can leave by no interface: better refused at once than lost.
                rules: rewrite(vec![
                    Expression::Version(Version::V6),
                    Destination6(Ipv6Addr::LOCALHOST),
                    Expression::Verdict(Verdict::Return),
                ]),
            },
            Chain {
                name: "postrouting",
                kind: "nat",
                hook: POSTROUTING,
                priority: PRIORITY_SRCNAT,
                rules: self.masquerade(),
            },
            Chain { name: "forward", kind: "filter", hook: FORWARD, priority: PRIORITY_FILTER, rules: self.forward() },
        ]
    }

    /// `route_localnet` is on for the bridge, so that the host reaches ports published on 127.0.0.1; containers must
    /// not reach the host's loopback by it (CVE-2020-8558).
    fn guard(&self) -> Vec<Expression> {
        vec![
            Expression::Version(Version::V4),
            InputInterface(self.bridge.clone()),
            loopback(),
            Expression::Verdict(Verdict::Drop),
        ]
    }

    fn masquerade(&self) -> Vec<Vec<Expression>> {
        let to_bridge = || OutputInterface(self.bridge.clone());
        let elsewhere = || NotOutputInterface(self.bridge.clone());
        let version4 = || Expression::Version(Version::V4);
        let from4 = || Source4 { network: self.subnet4.network(), mask: self.subnet4.netmask() };
        let mut rules = vec![
            vec![version4(), from4(), elsewhere(), Masquerade],
            // A container that calls a port published by one on the same bridge: the answer must come back by us.
            vec![version4(), from4(), to_bridge(), DestinationRewritten, Masquerade],
            vec![version4(), Source4 { network: LOOPBACK, mask: LOOPBACK_MASK }, to_bridge(), Masquerade],
        ];
        if let Some(subnet) = self.subnet6 {
            let version6 = || Expression::Version(Version::V6);
            let from6 = || Source6 { network: subnet.network(), mask: subnet.netmask() };
            rules.push(vec![version6(), from6(), elsewhere(), Masquerade]);
            rules.push(vec![version6(), from6(), to_bridge(), DestinationRewritten, Masquerade]);
        }
        rules
    }

    fn forward(&self) -> Vec<Vec<Expression>> {
        let to_bridge = || OutputInterface(self.bridge.clone());
        let accept = || Expression::Verdict(Verdict::Accept);
        vec![
            vec![InputInterface(self.bridge.clone()), to_bridge(), accept()],
            vec![to_bridge(), EstablishedOrRelated, accept()],
            vec![to_bridge(), DestinationRewritten, accept()],
            vec![to_bridge(), Expression::Verdict(Verdict::Drop)],
        ]
    }
}

fn loopback() -> Expression {
    Destination4 { network: LOOPBACK, mask: LOOPBACK_MASK }
}

/// `first`, then one rule for each map; the more specific maps come first.
fn rewrite(first: Vec<Expression>) -> Vec<Vec<Expression>> {
    let by_map = [PortMap::At4, PortMap::Any4, PortMap::At6, PortMap::Any6].map(|map| {
        vec![
            Expression::Version(map.version()),
            DestinationIsLocal,
            RewriteByMap { map: map.name(), version: map.version(), by_address: map.by_address() },
        ]
    });
    std::iter::once(first).chain(by_map).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(subnet6: Option<&str>) -> Ruleset {
        Ruleset {
            table: "berth".to_owned(),
            bridge: "berth0".to_owned(),
            subnet4: "172.18.0.0/16".parse().unwrap(),
            subnet6: subnet6.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn the_last_word_on_traffic_to_the_bridge_is_drop() {
        let chains = ruleset(None).chains();
        let forward = chains.iter().find(|chain| chain.name == "forward").unwrap();
        let last = forward.rules.last().unwrap();
        assert_eq!(last, &[OutputInterface("berth0".to_owned()), Expression::Verdict(Verdict::Drop)]);
    }

    #[test]
    fn every_map_is_consulted_for_traffic_from_outside_and_from_the_host() {
        for name in ["prerouting", "output"] {
            let chains = ruleset(None).chains();
            let chain = chains.iter().find(|chain| chain.name == name).unwrap();
            for map in PortMap::ALL {
                let wanted = RewriteByMap { map: map.name(), version: map.version(), by_address: map.by_address() };
                assert!(chain.rules.iter().any(|rule| rule.contains(&wanted)), "{name} {}", map.name());
            }
        }
    }

    #[test]
    fn ipv6_is_masqueraded_only_where_the_network_has_it() {
        let count = |ruleset: &Ruleset| ruleset.masquerade().len();
        assert_eq!(count(&ruleset(None)), 3);
        assert_eq!(count(&ruleset(Some("fd00:b:e::/64"))), 5);
    }
}
