//! Connections the kernel remembers, and making it forget those that would mislead packets.
//!
//! A flow of UDP has no end: as long as the caller goes on, the kernel sends its packets where it sent the first one. When
//! that container is gone, or when nothing was published yet at the time, they never reach who has the port now.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::error::NetworkError;
use crate::netlink::message::ACK;
use crate::netlink::{AttributeReader, Attributes, Batch, Socket, Step};
use crate::port::Protocol;

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER_LEN: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

const FILTER_PROTOCOL: u32 = 1 << 3;
const STATUS_REWRITTEN: u32 = 1 << 4 | 1 << 5;

/// Keeps a datagram small, and the answers within the receive buffer.
const DELETIONS_PER_DATAGRAM: usize = 128;

/// UDP flows that are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flows {
    /// All that this address answers, whatever address the caller uses.
    AnsweredBy(IpAddr),
    /// Those to a port of the host that are not rewritten, because it was not published when they began.
    ToUnpublished { ipv6: bool, port: u16 },
}

/// A flow as the kernel describes it.
#[derive(Debug, Clone, Copy)]
struct Flow<'a> {
    original: &'a [u8],
    id: &'a [u8],
    port: u16,
    answered_by: IpAddr,
    rewritten: bool,
}

/// Walks the whole table once for each family concerned, which takes 10 ms of a processor where the table is large: ask
/// for everything at once, and rarely. Needs Linux 5.8 (filters for lists).
pub(crate) fn forget(socket: &mut Socket, flows: &[Flows]) -> Result<(), NetworkError> {
    let (ipv6, ipv4): (Vec<Flows>, Vec<Flows>) = flows.iter().partition(|flows| flows.is_ipv6());
    for (family, flows) in [(AF_INET, ipv4), (AF_INET6, ipv6)] {
        if !flows.is_empty() {
            forget_of_family(socket, family, &flows)?;
        }
    }
    Ok(())
}

fn forget_of_family(socket: &mut Socket, family: u8, flows: &[Flows]) -> Result<(), NetworkError> {
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let step = Step::new("list", "tracked connections");
    socket.dump_some(step, GET, &[family, 0, 0, 0], filter_udp, |body| {
        if let Some(flow) = Flow::parse(body)
            && flows.iter().any(|flows| flows.include(&flow))
        {
            found.push((flow.original.to_vec(), flow.id.to_vec()));
        }
    })?;
    for some in found.chunks(DELETIONS_PER_DATAGRAM) {
        let mut batch = Batch::default();
        for (original, id) in some {
            let step = Step::new("delete", "a tracked connection");
            batch.push(step, DELETE, ACK, &[family, 0, 0, 0], |message| {
                message.nested_bytes(CTA_TUPLE_ORIG, original);
                message.bytes(CTA_ID, id);
            });
        }
        match socket.execute(batch) {
            // One that ended by itself meanwhile; the others are deleted all the same.
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

fn filter_udp(message: &mut Attributes<'_>) {
    message.nested(CTA_TUPLE_ORIG, |tuple| {
        tuple.nested(CTA_TUPLE_PROTO, |proto| proto.u8(CTA_PROTO_NUM, Protocol::Udp.number()));
    });
    message.nested(CTA_FILTER, |filter| filter.u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL));
}

impl Flows {
    fn is_ipv6(&self) -> bool {
        match self {
            Self::AnsweredBy(address) => address.is_ipv6(),
            Self::ToUnpublished { ipv6, .. } => *ipv6,
        }
    }

    fn include(&self, flow: &Flow<'_>) -> bool {
        match self {
            Self::AnsweredBy(address) => flow.answered_by == *address,
            Self::ToUnpublished { port, .. } => flow.port == *port && !flow.rewritten,
        }
    }
}

impl<'a> Flow<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let attributes = AttributeReader::after(body, HEADER_LEN);
        let port = attributes.nested(CTA_TUPLE_ORIG)?.nested(CTA_TUPLE_PROTO)?.find(CTA_PROTO_DST_PORT)?;
        let answer = attributes.nested(CTA_TUPLE_REPLY)?.nested(CTA_TUPLE_IP)?;
        let ipv4 = answer.find(CTA_IP_V4_SRC).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| (*bytes).into());
        let ipv6 = answer.find(CTA_IP_V6_SRC).and_then(|bytes| bytes.first_chunk::<16>()).map(|bytes| (*bytes).into());
        let status = u32::from_be_bytes(*attributes.find(CTA_STATUS)?.first_chunk()?);
        Some(Self {
            original: attributes.find(CTA_TUPLE_ORIG)?,
            id: attributes.find(CTA_ID)?,
            port: u16::from_be_bytes(*port.first_chunk()?),
            answered_by: ipv4.or(ipv6)?,
            rewritten: status & STATUS_REWRITTEN != 0,
        })
    }
}
