//! PAX extended header records: `<length> <key>=<value>\n`.

use super::{Mtime, Xattr};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records of one entry say. `None`: nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: PaxSparse,
}

/// The `GNU.sparse.*` records, uninterpreted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths in turn (versions 0.0 and 0.1).
    pub(super) map: Vec<u64>,
    pub(super) has_map: bool,
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the records. `Err` says what is wrong.
pub(super) fn records(mut rest: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or("PAX record without a length")?;
        let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or("PAX record with a length that is no number")?;
        let record = rest.get(space + 1..length).ok_or("PAX record with a wrong length")?;
        let record = record.strip_suffix(b"\n").ok_or("PAX record with a wrong length")?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or("PAX record without a value")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err("PAX record with a bad key");
        }
        found.push((key, value));
        rest = &rest[length..];
    }
    Ok(found)
}

/// Reads the records of one entry.
pub(super) fn parse(bytes: &[u8]) -> Result<PaxRecords, &'static str> {
    let mut pax = PaxRecords::default();
    for (key, value) in records(bytes)? {
        // An empty value takes back what was said: the header's own field counts.
        match key {
            b"path" => set_once(&mut pax.path, text(value)?)?,
            b"linkpath" => set_once(&mut pax.link, text(value)?)?,
            b"size" => set_once(&mut pax.size, number(value)?)?,
            b"uid" => set_once(&mut pax.uid, number(value)?)?,
            b"gid" => set_once(&mut pax.gid, number(value)?)?,
            b"mtime" if !value.is_empty() => {
                set_once(&mut pax.mtime, Some(time(value).ok_or("PAX time is no number")?))?
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    pax.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    parse_sparse(&mut pax.sparse, key, value)?;
                }
            }
        }
    }
    Ok(pax)
}

/// A global header may carry comments (git does), but nothing that changes what later entries are: implementations disagree about that.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), &'static str> {
    for (key, _) in records(bytes)? {
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err("global PAX header with names or sizes");
        }
    }
    Ok(())
}

fn parse_sparse(sparse: &mut PaxSparse, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"major" => set_once(&mut sparse.major, number(value)?),
        b"minor" => set_once(&mut sparse.minor, number(value)?),
        b"name" => set_once(&mut sparse.name, text(value)?),
        b"size" | b"realsize" => set_once(&mut sparse.real_size, number(value)?),
        b"map" => {
            if sparse.has_map {
                return Err("PAX record given twice");
            }
            sparse.has_map = true;
            for part in value.split(|byte| *byte == b',').filter(|part| !part.is_empty()) {
                sparse.map.push(decimal(part).ok_or("sparse map is no list of numbers")?);
            }
            Ok(())
        }
        b"offset" | b"numbytes" => {
            let is_offset = key == b"offset";
            if sparse.map.len().is_multiple_of(2) != is_offset {
                return Err("sparse map out of order");
            }
            sparse.has_map = true;
            sparse.map.push(decimal(value).ok_or("sparse map is no list of numbers")?);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same twice is harmless, two different values are two readings.
fn set_once<T: PartialEq>(field: &mut Option<T>, value: Option<T>) -> Result<(), &'static str> {
    if field.is_some() && *field != value {
        return Err("PAX record given twice");
    }
    *field = value;
    Ok(())
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("PAX name with a NUL");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or("PAX number is no number")
}

/// Decimal digits only, within what a file offset can be.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(value).is_ok().then_some(value)
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Mtime> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds: u32 = 0;
    for at in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    }
    Some(match (is_negative, nanoseconds) {
        (false, _) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The shortest decimal form.
pub(super) fn time_text(mtime: Mtime) -> String {
    let Mtime { seconds, nanoseconds } = mtime;
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, seconds, nanoseconds) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned()
}

/// Appends one record. Its length counts its own digits.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let without_digits = key.len() + value.len() + 3;
    let mut length = without_digits + digits(without_digits);
    length = without_digits + digits(length);
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

pub(super) fn push_xattr(out: &mut Vec<u8>, xattr: &Xattr) {
    push(out, &[XATTR_PREFIX, &xattr.name].concat(), &xattr.value);
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}
