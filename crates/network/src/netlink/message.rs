//! Netlink framing: a batch of requests written into one datagram, and attributes read from an answer.
//!
//! ```text
//! nlmsghdr { len u32, type u16, flags u16, seq u32, port u32 } family header, then attributes:
//! nlattr   { len u16, type u16 } value, padded to 4
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

pub(crate) const HEADER_LEN: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// What one message of a batch is for; it becomes the text of the error.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) action: &'static str,
    pub(crate) object: String,
}

impl Step {
    pub(crate) fn new(action: &'static str, object: impl Into<String>) -> Self {
        Self { action, object: object.into() }
    }
}

/// Requests that travel in one datagram. The kernel handles them in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    steps: Vec<(usize, Step)>,
}

impl Batch {
    pub(crate) fn push(
        &mut self,
        step: Step,
        kind: u16,
        flags: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.steps.push((start, step));
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(family_header);
        pad(&mut self.bytes);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a batch is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Writes the sequence numbers `first`, `first + 1`, ... into the messages.
    pub(crate) fn number(&mut self, first: u32) {
        for (sequence, (start, _)) in (first..).zip(&self.steps) {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn step(&self, index: usize) -> Option<&Step> {
        self.steps.get(index).map(|(_, step)| step)
    }

    /// Adds a flag to the last message (the one whose acknowledgement ends a transaction).
    pub(crate) fn flag_last(&mut self, flag: u16) {
        if let Some((start, _)) = self.steps.last() {
            let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | flag;
            self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// Writes attributes into the message under construction.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attribute values are shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Host byte order (rtnetlink).
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Network byte order (nfnetlink).
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn ipv4(&mut self, kind: u16, value: Ipv4Addr) {
        self.bytes(kind, &value.octets());
    }

    pub(crate) fn ipv6(&mut self, kind: u16, value: Ipv6Addr) {
        self.bytes(kind, &value.octets());
    }

    /// A string with its terminating zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Attributes that are encoded already.
    pub(crate) fn nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }

    /// Bytes of a fixed header inside a nested attribute (the peer of a veth starts with one).
    pub(crate) fn header(&mut self, header: &[u8]) {
        self.bytes.extend_from_slice(header);
        pad(self.bytes);
    }

    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).expect("nested attributes are shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message of an answer: its type and what follows the header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into messages; a broken length ends the walk.
pub(crate) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        if length < HEADER_LEN || length > datagram.len() {
            return None;
        }
        let (message, _) = datagram.split_at(length);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16::from_ne_bytes(*message[4..].first_chunk()?),
            flags: u16::from_ne_bytes(*message[6..].first_chunk()?),
            sequence: u32::from_ne_bytes(*message[8..].first_chunk()?),
            body: &message[HEADER_LEN..],
        })
    })
}

/// Walks attributes; a broken length ends the walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttributeReader<'a> {
    bytes: &'a [u8],
}

impl<'a> AttributeReader<'a> {
    /// `bytes` starts after the family header, which is `header_len` long.
    pub(crate) fn after(bytes: &'a [u8], header_len: usize) -> Self {
        Self { bytes: bytes.get(header_len.next_multiple_of(4)..).unwrap_or_default() }
    }

    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    pub(crate) fn string(self, kind: u16) -> Option<String> {
        let value = self.find(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    pub(crate) fn nested(self, kind: u16) -> Option<AttributeReader<'a>> {
        self.find(kind).map(|bytes| AttributeReader { bytes })
    }
}

impl<'a> Iterator for AttributeReader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(*self.bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.bytes.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = self.bytes.get(4..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_lengths_numbers_and_padding() {
        let mut batch = Batch::default();
        batch.push(Step::new("make", "a"), 16, ACK, &[1, 2, 3], |message| {
            message.string(3, "lo");
            message.nested(18, |nested| nested.u8(1, 7));
        });
        batch.push(Step::new("make", "b"), 20, 0, &[], |_| {});
        batch.number(5);
        let found: Vec<_> = answers(batch.bytes()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].flags, found[0].sequence), (16, ACK | REQUEST, 5));
        assert_eq!((found[1].kind, found[1].flags, found[1].sequence), (20, REQUEST, 6));
        let attributes = AttributeReader::after(found[0].body, 3);
        assert_eq!(attributes.string(3).as_deref(), Some("lo"));
        assert_eq!(attributes.nested(18).and_then(|nested| nested.find(1)), Some(&[7_u8][..]));
        assert_eq!(attributes.find(4), None);
    }

    #[test]
    fn broken_lengths_end_the_walk_without_panic() {
        let mut message = Batch::default();
        message.push(Step::new("make", "a"), 16, 0, &[], |attributes| attributes.u32(1, 2));
        let whole = message.bytes().to_vec();
        for cut in 0..whole.len() {
            assert_eq!(answers(&whole[..cut]).count(), 0, "cut at {cut}");
        }
        for byte in 0..whole.len() {
            let mut broken = whole.clone();
            broken[byte] = 0xff;
            for answer in answers(&broken) {
                let _ = AttributeReader::after(answer.body, 0).count();
            }
        }
        assert_eq!(AttributeReader::after(&[3, 0, 1, 0], 0).count(), 0, "shorter than its own header");
    }
}
