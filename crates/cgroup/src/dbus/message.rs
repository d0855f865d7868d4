//! Messages: a header with named fields, and a body.

use super::wire::{Decoder, Encoder};

/// The largest message we take; systemd's signals and answers have some hundred bytes.
pub(super) const LENGTH_MAX: usize = 1 << 20;
/// The part of a header before its fields.
pub(super) const HEAD: usize = 16;

const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const PROTOCOL: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    /// To be ignored, as the specification demands.
    Other,
}

/// Header fields by their codes.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A message that arrived.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) reply_to: u32,
    pub(crate) member: String,
    pub(crate) error_name: String,
    pub(crate) signature: String,
    body: Vec<u8>,
}

impl Message {
    pub(crate) fn body(&self) -> Decoder<'_> {
        Decoder::new(&self.body)
    }

    /// How long the whole message is, from its first [`HEAD`] bytes.
    pub(super) fn total_length(head: &[u8; HEAD]) -> Result<usize, &'static str> {
        let [endian, _, _, protocol, ..] = *head;
        if endian != ENDIAN || protocol != PROTOCOL {
            return Err("it is of another byte order or protocol version");
        }
        let mut decoder = Decoder::new(head);
        let mut number = |at: usize| {
            while decoder.position() < at {
                decoder.byte()?;
            }
            usize::try_from(decoder.u32()?).ok()
        };
        let (body, fields) = (number(4).unwrap_or(LENGTH_MAX), number(12).unwrap_or(LENGTH_MAX));
        if body > LENGTH_MAX || fields > LENGTH_MAX {
            return Err("it is too long");
        }
        Ok((HEAD + fields).next_multiple_of(8) + body)
    }

    /// Reads a whole message.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        decoder.byte()?;
        let kind = match decoder.byte()? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        let _flags_and_version = (decoder.byte()?, decoder.byte()?);
        let body_length = usize::try_from(decoder.u32()?).ok()?;
        let _serial = decoder.u32()?;
        let end = HEAD + usize::try_from(decoder.u32()?).ok()?;
        let mut message = Self {
            kind,
            reply_to: 0,
            member: String::new(),
            error_name: String::new(),
            signature: String::new(),
            body: Vec::new(),
        };
        while decoder.position() < end {
            message.field(&mut decoder)?;
        }
        decoder.align(8);
        message.body = bytes.get(decoder.position()..decoder.position() + body_length)?.to_vec();
        Some(message)
    }

    fn field(&mut self, decoder: &mut Decoder<'_>) -> Option<()> {
        decoder.align(8);
        let code = decoder.byte()?;
        match decoder.signature()? {
            "s" | "o" => {
                let text = decoder.text()?.to_owned();
                match code {
                    MEMBER => self.member = text,
                    ERROR_NAME => self.error_name = text,
                    _ => {}
                }
            }
            "g" => {
                let text = decoder.signature()?.to_owned();
                if code == SIGNATURE {
                    self.signature = text;
                }
            }
            "u" => {
                let number = decoder.u32()?;
                if code == REPLY_SERIAL {
                    self.reply_to = number;
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// Where a method is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// The bytes of a method call.
pub(super) fn call(serial: u32, target: Target<'_>, signature: &str, body: &[u8]) -> Vec<u8> {
    const METHOD_CALL: u8 = 1;
    let mut message = Encoder::default();
    for byte in [ENDIAN, METHOD_CALL, 0, PROTOCOL] {
        message.byte(byte);
    }
    message.u32(u32::try_from(body.len()).expect("what we send is far below 4 GiB"));
    message.u32(serial);
    let fields = [
        (PATH, "o", target.path),
        (INTERFACE, "s", target.interface),
        (MEMBER, "s", target.member),
        (DESTINATION, "s", target.destination),
        (SIGNATURE, "g", signature),
    ];
    // A call without arguments has no signature.
    let count = if signature.is_empty() { fields.len() - 1 } else { fields.len() };
    message.array(8, &fields[..count], |encoder, (code, kind, value)| {
        encoder.structure(|encoder| {
            encoder.byte(*code);
            encoder.signature(kind);
            if *kind == "g" { encoder.signature(value) } else { encoder.text(value) }
        });
    });
    message.align(8);
    message.bytes.extend(body);
    message.bytes
}
