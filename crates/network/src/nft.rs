//! Our nf_tables table: replaced as a whole, filled and emptied by map elements, always in one transaction.
//!
//! Needs Linux 5.6 (concatenated map values in `dnat`), table family `inet`.

pub(crate) mod expression;
pub(crate) mod ruleset;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::error::NetworkError;
use crate::netlink::message::{ACK, APPEND, CREATE, EXCLUSIVE};
use crate::netlink::{AttributeReader, Attributes, Batch, Socket, Step};
use crate::observed::ObservedPort;
use crate::port::{PortMapping, Protocol};
use expression::Version;
use ruleset::{Chain, PortMap, Ruleset};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const GETTABLE: u16 = SUBSYSTEM << 8 | 1;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
const GETSETELEM: u16 = SUBSYSTEM << 8 | 13;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;

const NFPROTO_INET: u8 = 1;
const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const SET_FLAG_MAP: u32 = 8;
const POLICY_ACCEPT: u32 = 1;

/// `nft`'s own numbers of the types, six bits each in a concatenation; the kernel only keeps them for listing.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;

/// Keeps each nested list of elements far below its limit of 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// An entry of a map of published ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    map: PortMap,
    host: Option<IpAddr>,
    protocol: Protocol,
    host_port: u16,
    target: IpAddr,
    target_port: u16,
}

/// The elements that publish a container's ports.
pub(crate) fn elements(ports: &[PortMapping], ipv4: Ipv4Addr, ipv6: Option<Ipv6Addr>) -> Vec<Element> {
    let mut found = Vec::new();
    for mapping in ports {
        for host in mapping.host_addresses(ipv6.is_some()) {
            let (target, any, at): (IpAddr, _, _) = match (host, ipv6) {
                (IpAddr::V4(_), _) => (ipv4.into(), PortMap::Any4, PortMap::At4),
                (IpAddr::V6(_), Some(ipv6)) => (ipv6.into(), PortMap::Any6, PortMap::At6),
                (IpAddr::V6(_), None) => continue,
            };
            let everywhere = host.is_unspecified();
            found.push(Element {
                map: if everywhere { any } else { at },
                host: (!everywhere).then_some(host),
                protocol: mapping.protocol,
                host_port: mapping.host_port,
                target,
                target_port: mapping.container_port,
            });
        }
    }
    found.sort();
    found
}

/// Makes the table say exactly `ruleset` and `published`, whatever it said before, without a moment in between.
pub(crate) fn replace(socket: &mut Socket, ruleset: &Ruleset, published: &[Element]) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new(&ruleset.table);
    // Deleting a table that does not exist is an error, adding one that does is not.
    transaction.table("create table", NEWTABLE, CREATE);
    transaction.table("delete table", DELTABLE, 0);
    transaction.table("create table", NEWTABLE, CREATE);
    for map in PortMap::ALL {
        transaction.map(map);
    }
    for chain in ruleset.chains() {
        transaction.chain(&chain);
    }
    transaction.elements("publish ports in", NEWSETELEM, CREATE, published);
    transaction.commit(socket)
}

pub(crate) fn publish(socket: &mut Socket, table: &str, elements: &[Element]) -> Result<(), NetworkError> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new(table);
    transaction.elements("publish ports in", NEWSETELEM, CREATE | EXCLUSIVE, elements);
    transaction.commit(socket)
}

/// Elements that are gone already are no error, but then the others have to go one by one.
pub(crate) fn withdraw(socket: &mut Socket, table: &str, elements: &[Element]) -> Result<(), NetworkError> {
    match withdraw_all(socket, table, elements) {
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            for element in elements {
                match withdraw_all(socket, table, std::slice::from_ref(element)) {
                    Err(error) if error.errno() != Some(Errno::NOENT) => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        }
        other => other,
    }
}

fn withdraw_all(socket: &mut Socket, table: &str, elements: &[Element]) -> Result<(), NetworkError> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new(table);
    transaction.elements("withdraw ports from", DELSETELEM, 0, elements);
    transaction.commit(socket)
}

/// Removes the table; that it is gone already is no error.
pub(crate) fn destroy(socket: &mut Socket, table: &str) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new(table);
    transaction.table("delete table", DELTABLE, 0);
    match transaction.commit(socket) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        other => other,
    }
}

pub(crate) fn exists(socket: &mut Socket, table: &str) -> Result<bool, NetworkError> {
    let mut batch = Batch::default();
    let header = header(NFPROTO_INET);
    batch.push(Step::new("look up table", table), GETTABLE, 0, &header, |message| message.string(1, table));
    Ok(socket.get(batch)?.is_some())
}

/// Where a published port leads to by the kernel's map; `None`: the map has no such entry, or there is no table.
pub(crate) fn look_up(
    socket: &mut Socket,
    table: &str,
    element: &Element,
) -> Result<Option<(IpAddr, u16)>, NetworkError> {
    let mut batch = Batch::default();
    let name = element.map.name();
    let step = Step::new("look up an entry of", format!("map {name} of table {table}"));
    batch.push(step, GETSETELEM, 0, &header(NFPROTO_INET), |message| {
        message.string(1, table);
        message.string(2, name);
        message.nested(3, |list| element.encode(list, false));
    });
    let found = socket.get(batch)?;
    Ok(found.and_then(|body| {
        let list = AttributeReader::after(&body, 4).nested(3)?;
        let value = list.nested(LIST_ELEM)?.nested(2)?.find(DATA_VALUE)?;
        let (address, port): (IpAddr, _) = match element.map.version() {
            Version::V4 => (Ipv4Addr::from(*value.first_chunk::<4>()?).into(), value.get(4..)?),
            Version::V6 => (Ipv6Addr::from(*value.first_chunk::<16>()?).into(), value.get(16..)?),
        };
        Some((address, u16::from_be_bytes(*port.first_chunk()?)))
    }))
}

/// Messages between a begin and an end, which the kernel carries out all or none.
struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
}

impl<'a> Transaction<'a> {
    fn new(table: &'a str) -> Self {
        let mut batch = Batch::default();
        let mut header = header(0);
        header[2..4].copy_from_slice(&SUBSYSTEM.to_be_bytes());
        batch.push(Step::new("change table", table), BATCH_BEGIN, 0, &header, |_| {});
        Self { table, batch }
    }

    fn commit(mut self, socket: &mut Socket) -> Result<(), NetworkError> {
        self.batch.flag_last(ACK);
        let mut header = header(0);
        header[2..4].copy_from_slice(&SUBSYSTEM.to_be_bytes());
        self.batch.push(Step::new("change table", self.table), BATCH_END, 0, &header, |_| {});
        socket.transact(self.batch)
    }

    fn table(&mut self, action: &'static str, kind: u16, flags: u16) {
        let step = Step::new(action, self.table);
        self.batch.push(step, kind, flags, &header(NFPROTO_INET), |message| message.string(1, self.table));
    }

    fn map(&mut self, map: PortMap) {
        let step = Step::new("create map", format!("{} in table {}", map.name(), self.table));
        let (address_type, address_len) = match map.version() {
            Version::V4 => (TYPE_IPV4, 4),
            Version::V6 => (TYPE_IPV6, 16),
        };
        let (mut key_type, mut key_len) = (TYPE_PROTOCOL << 6 | TYPE_SERVICE, 8);
        if map.by_address() {
            key_type |= address_type << 12;
            key_len += address_len;
        }
        let id = map as u32 + 1;
        self.batch.push(step, NEWSET, CREATE | EXCLUSIVE, &header(NFPROTO_INET), |message| {
            message.string(1, self.table);
            message.string(2, map.name());
            message.be32(3, SET_FLAG_MAP);
            message.be32(4, key_type);
            message.be32(5, key_len);
            message.be32(6, address_type << 6 | TYPE_SERVICE);
            message.be32(7, address_len + 4);
            message.be32(10, id);
        });
    }

    fn chain(&mut self, chain: &Chain) {
        let step = Step::new("create chain", format!("{} in table {}", chain.name, self.table));
        self.batch.push(step, NEWCHAIN, CREATE | EXCLUSIVE, &header(NFPROTO_INET), |message| {
            message.string(1, self.table);
            message.string(3, chain.name);
            message.nested(4, |hook| {
                hook.be32(1, chain.hook);
                hook.bytes(2, &chain.priority.to_be_bytes());
            });
            message.be32(5, POLICY_ACCEPT);
            message.string(7, chain.kind);
        });
        for (index, rule) in chain.rules.iter().enumerate() {
            let place = format!("{} of chain {} in table {}", index + 1, chain.name, self.table);
            let step = Step::new("create rule", place);
            self.batch.push(step, NEWRULE, CREATE | APPEND, &header(NFPROTO_INET), |message| {
                message.string(1, self.table);
                message.string(2, chain.name);
                message.nested(4, |list| rule.iter().for_each(|expression| expression.encode(list)));
            });
        }
    }

    fn elements(&mut self, action: &'static str, kind: u16, flags: u16, elements: &[Element]) {
        for of_map in elements.chunk_by(|one, other| one.map == other.map) {
            for chunk in of_map.chunks(ELEMENTS_PER_MESSAGE) {
                let name = chunk[0].map.name();
                let step = Step::new(action, format!("map {name} of table {}", self.table));
                self.batch.push(step, kind, flags, &header(NFPROTO_INET), |message| {
                    message.string(1, self.table);
                    message.string(2, name);
                    message.nested(3, |list| chunk.iter().for_each(|element| element.encode(list, kind == NEWSETELEM)));
                });
            }
        }
    }
}

impl Element {
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn host_port(&self) -> u16 {
        self.host_port
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        self.target.is_ipv6()
    }

    pub(crate) fn observed(&self, table: &str, found: Option<(IpAddr, u16)>) -> ObservedPort {
        ObservedPort {
            place: format!("map {} of table inet {table}", self.map.name()),
            protocol: self.protocol,
            host: self.host,
            host_port: self.host_port,
            wanted: (self.target, self.target_port),
            found,
        }
    }

    fn encode(&self, list: &mut Attributes<'_>, with_value: bool) {
        let mut key = self.host.map(octets).unwrap_or_default();
        key.extend_from_slice(&[self.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&self.host_port.to_be_bytes());
        key.extend_from_slice(&[0; 2]);
        let mut value = octets(self.target);
        value.extend_from_slice(&self.target_port.to_be_bytes());
        value.extend_from_slice(&[0; 2]);
        list.nested(LIST_ELEM, |element| {
            element.nested(1, |data| data.bytes(DATA_VALUE, &key));
            if with_value {
                element.nested(2, |data| data.bytes(DATA_VALUE, &value));
            }
        });
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `nfgenmsg`: family, version, resource id.
fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}
