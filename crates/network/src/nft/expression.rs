//! The few expressions our rules are made of, and their encoding for nf_tables.
//!
//! A rule is a list of expressions that run in order over registers; the first that does not match ends the rule. Values
//! are compared as they stand in the packet, in network byte order. `nft --debug=netlink list ruleset` shows the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netlink::Attributes;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// A 16-byte register for comparisons and for the first part of a key.
const VERDICT: u32 = 0;
const SCRATCH: u32 = 1;
/// The 4-byte registers; `KEY` is where `SCRATCH` starts.
const KEY: u32 = 8;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const META_OIFNAME: u32 = 7;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const INTERFACE_NAME_LEN: usize = 16;

/// Bits of `ct state` and `ct status` as the kernel keeps them, in host byte order.
const STATE_ESTABLISHED_RELATED: u32 = 0b110;
const STATUS_DNAT: u32 = 1 << 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    Different,
}

/// A condition or an action of a rule, in the words of `nft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Version(Version),
    InputInterface(String),
    OutputInterface(String),
    NotOutputInterface(String),
    Source4 {
        network: Ipv4Addr,
        mask: Ipv4Addr,
    },
    Destination4 {
        network: Ipv4Addr,
        mask: Ipv4Addr,
    },
    Source6 {
        network: Ipv6Addr,
        mask: Ipv6Addr,
    },
    Destination6(Ipv6Addr),
    /// `fib daddr type local`
    DestinationIsLocal,
    /// `ct state established,related`
    EstablishedOrRelated,
    /// `ct status dnat`
    DestinationRewritten,
    /// `dnat to [daddr .] l4proto . th dport map @name`
    RewriteByMap {
        map: &'static str,
        version: Version,
        by_address: bool,
    },
    Masquerade,
    Verdict(Verdict),
}

impl Expression {
    pub(crate) fn encode(&self, rule: &mut Attributes<'_>) {
        match self {
            Self::Version(version) => {
                meta(rule, META_NFPROTO, SCRATCH);
                let value = match version {
                    Version::V4 => NFPROTO_IPV4,
                    Version::V6 => NFPROTO_IPV6,
                };
                compare(rule, Compare::Equal, &[value]);
            }
            Self::InputInterface(name) => interface(rule, META_IIFNAME, Compare::Equal, name),
            Self::OutputInterface(name) => interface(rule, META_OIFNAME, Compare::Equal, name),
            Self::NotOutputInterface(name) => interface(rule, META_OIFNAME, Compare::Different, name),
            Self::Source4 { network, mask } => masked_payload(rule, 12, &network.octets(), &mask.octets()),
            Self::Destination4 { network, mask } => masked_payload(rule, 16, &network.octets(), &mask.octets()),
            Self::Source6 { network, mask } => masked_payload(rule, 8, &network.octets(), &mask.octets()),
            Self::Destination6(address) => {
                payload(rule, PAYLOAD_NETWORK, 24, 16, SCRATCH);
                compare(rule, Compare::Equal, &address.octets());
            }
            Self::DestinationIsLocal => {
                expression(rule, "fib", |fib| {
                    fib.be32(1, SCRATCH);
                    fib.be32(2, FIB_RESULT_ADDRTYPE);
                    fib.be32(3, FIB_FLAG_DADDR);
                });
                compare(rule, Compare::Equal, &RTN_LOCAL.to_ne_bytes());
            }
            Self::EstablishedOrRelated => conntrack_bits(rule, CT_STATE, STATE_ESTABLISHED_RELATED),
            Self::DestinationRewritten => conntrack_bits(rule, CT_STATUS, STATUS_DNAT),
            Self::RewriteByMap { map, version, by_address } => rewrite_by_map(rule, map, *version, *by_address),
            Self::Masquerade => expression(rule, "masq", |_| {}),
            Self::Verdict(verdict) => immediate(rule, *verdict),
        }
    }
}

/// Loads the key into consecutive registers, looks it up, and rewrites to the address and port that come back.
fn rewrite_by_map(rule: &mut Attributes<'_>, map: &str, version: Version, by_address: bool) {
    let (offset, address_len, family) = match version {
        Version::V4 => (16, 4, NFPROTO_IPV4),
        Version::V6 => (24, 16, NFPROTO_IPV6),
    };
    let address_registers = address_len / 4;
    let mut register = KEY;
    if by_address {
        payload(rule, PAYLOAD_NETWORK, offset, address_len, register);
        register += address_registers;
    }
    meta(rule, META_L4PROTO, register);
    payload(rule, PAYLOAD_TRANSPORT, 2, 2, register + 1);
    expression(rule, "lookup", |lookup| {
        lookup.string(1, map);
        lookup.be32(2, KEY);
        lookup.be32(3, KEY);
    });
    expression(rule, "nat", |nat| {
        nat.be32(1, 1);
        nat.be32(2, u32::from(family));
        nat.be32(3, KEY);
        nat.be32(5, KEY + address_registers);
    });
}

fn interface(rule: &mut Attributes<'_>, key: u32, how: Compare, name: &str) {
    let mut padded = [0; INTERFACE_NAME_LEN];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(INTERFACE_NAME_LEN - 1)) {
        *to = from;
    }
    meta(rule, key, SCRATCH);
    compare(rule, how, &padded);
}

fn masked_payload(rule: &mut Attributes<'_>, offset: u32, network: &[u8], mask: &[u8]) {
    payload(rule, PAYLOAD_NETWORK, offset, u32::try_from(mask.len()).expect("4 or 16"), SCRATCH);
    bitwise_and(rule, mask);
    compare(rule, Compare::Equal, network);
}

fn conntrack_bits(rule: &mut Attributes<'_>, key: u32, bits: u32) {
    expression(rule, "ct", |ct| {
        ct.be32(1, SCRATCH);
        ct.be32(2, key);
    });
    bitwise_and(rule, &bits.to_ne_bytes());
    compare(rule, Compare::Different, &[0; 4]);
}

fn meta(rule: &mut Attributes<'_>, key: u32, register: u32) {
    expression(rule, "meta", |meta| {
        meta.be32(1, register);
        meta.be32(2, key);
    });
}

fn payload(rule: &mut Attributes<'_>, base: u32, offset: u32, length: u32, register: u32) {
    expression(rule, "payload", |payload| {
        payload.be32(1, register);
        payload.be32(2, base);
        payload.be32(3, offset);
        payload.be32(4, length);
    });
}

fn compare(rule: &mut Attributes<'_>, how: Compare, value: &[u8]) {
    expression(rule, "cmp", |cmp| {
        cmp.be32(1, SCRATCH);
        cmp.be32(2, u32::from(how == Compare::Different));
        cmp.nested(3, |data| data.bytes(DATA_VALUE, value));
    });
}

fn bitwise_and(rule: &mut Attributes<'_>, mask: &[u8]) {
    expression(rule, "bitwise", |bitwise| {
        bitwise.be32(1, SCRATCH);
        bitwise.be32(2, SCRATCH);
        bitwise.be32(3, u32::try_from(mask.len()).expect("4 or 16"));
        bitwise.nested(4, |data| data.bytes(DATA_VALUE, mask));
        bitwise.nested(5, |data| data.bytes(DATA_VALUE, &[0; 16][..mask.len()]));
    });
}

fn immediate(rule: &mut Attributes<'_>, verdict: Verdict) {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Return => -5,
    };
    expression(rule, "immediate", |immediate| {
        immediate.be32(1, VERDICT);
        immediate.nested(2, |data| {
            data.nested(DATA_VERDICT, |verdict| verdict.bytes(VERDICT_CODE, &code.to_be_bytes()));
        });
    });
}

fn expression(rule: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    rule.nested(LIST_ELEM, |element| {
        element.string(EXPR_NAME, name);
        element.nested(EXPR_DATA, fill);
    });
}
