//! The 512-byte header block and its number formats.

use super::{BLOCK, EntryKind};

pub(super) struct Header(pub(super) [u8; BLOCK]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Posix,
    Star,
    Gnu,
}

type Range = std::ops::Range<usize>;

pub(super) const NAME: Range = 0..100;
pub(super) const MODE: Range = 100..108;
pub(super) const UID: Range = 108..116;
pub(super) const GID: Range = 116..124;
pub(super) const SIZE: Range = 124..136;
pub(super) const MTIME: Range = 136..148;
const CHECKSUM: Range = 148..156;
const TYPE: usize = 156;
pub(super) const LINK: Range = 157..257;
const MAGIC: Range = 257..265;
pub(super) const DEVICE_MAJOR: Range = 329..337;
pub(super) const DEVICE_MINOR: Range = 337..345;
pub(super) const PREFIX: Range = 345..500;
const STAR_PREFIX: Range = 345..476;
const STAR_TRAILER: Range = 508..512;
pub(super) const GNU_SPARSE: Range = 386..483;
pub(super) const GNU_REAL_SIZE: Range = 483..495;

impl Header {
    pub(super) fn new() -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[MAGIC].copy_from_slice(b"ustar\x0000");
        header
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    pub(super) fn set_kind(&mut self, kind: u8) {
        self.0[TYPE] = kind;
    }

    pub(super) fn format(&self) -> Format {
        match &self.0[MAGIC] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") && &self.0[STAR_TRAILER] == b"tar\0" => Format::Star,
            magic if magic.starts_with(b"ustar\0") => Format::Posix,
            _ => Format::V7,
        }
    }

    /// The name with its prefix, as the format has it.
    pub(super) fn name_into(&self, name: &mut Vec<u8>) {
        name.clear();
        let prefix = match self.format() {
            Format::Posix => self.text(PREFIX),
            Format::Star => self.text(STAR_PREFIX),
            Format::V7 | Format::Gnu => b"",
        };
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
        name.extend_from_slice(self.text(NAME));
    }

    /// A field up to its first NUL.
    pub(super) fn text(&self, field: Range) -> &[u8] {
        until_nul(&self.0[field])
    }

    pub(super) fn number(&self, field: Range) -> Option<i64> {
        number(&self.0[field])
    }

    /// Writes octal digits with a NUL; false when they do not fit.
    pub(super) fn set_octal(&mut self, field: Range, value: u64) -> bool {
        let width = field.len() - 1;
        let digits = format!("{value:0width$o}");
        let fits = digits.len() == width;
        if fits {
            self.0[field.start..field.start + width].copy_from_slice(digits.as_bytes());
        }
        fits
    }

    /// Writes a text; false when it does not fit.
    pub(super) fn set_text(&mut self, field: Range, text: &[u8]) -> bool {
        let fits = text.len() <= field.len();
        if fits {
            self.0[field.start..field.start + text.len()].copy_from_slice(text);
        }
        fits
    }

    pub(super) fn seal(&mut self) {
        let digits = format!("{:06o}\0 ", self.checksums().0);
        self.0[CHECKSUM].copy_from_slice(digits.as_bytes());
    }

    /// Some old archivers summed signed bytes.
    pub(super) fn has_right_checksum(&self) -> bool {
        let (unsigned, signed) = self.checksums();
        self.number(CHECKSUM).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    fn checksums(&self) -> (i64, i64) {
        let (mut unsigned, mut signed) = (0, 0);
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        (unsigned, signed)
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

/// Octal text, or GNU's big-endian two's complement when the first bit is set. Nothing but blanks is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first()? {
        first if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn binary(field: &[u8]) -> Option<i64> {
    let is_negative = field[0] & 0x40 != 0;
    let mut value: i64 = if is_negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = match (at, is_negative) {
            (0, false) => byte & 0x3f,
            (0, true) => byte | 0xc0,
            _ => *byte,
        };
        // The bits that are shifted out must all be the sign.
        if value >> 55 != if is_negative { -1 } else { 0 } {
            return None;
        }
        value = (value << 8) | i64::from(byte);
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_blank(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !is_blank(byte))? + 1;
    let digits = until_nul(&field[start..end]);
    let mut value: i64 = 0;
    for byte in digits {
        if !matches!(byte, b'0'..=b'7') {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
    }
    Some(value)
}

impl EntryKind {
    pub(super) fn type_byte(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}
