//! Writing an archive: ustar headers, PAX records where they do not suffice. The same entries always give the same bytes.

use std::io::Write;

use super::entry::{Entry, EntryKind};
use super::header::{DEVICE_MAJOR, DEVICE_MINOR, GID, Header, LINK, MODE, MTIME, NAME, PREFIX, SIZE, UID};
use super::pax;
use super::{BLOCK, META_SIZE_MAX, TarError};

/// An archive being written. Each entry's data is exactly as long as its size.
pub struct TarWriter<'w> {
    out: &'w mut dyn Write,
    data_rest: u64,
    padding: usize,
}

impl std::fmt::Debug for TarWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarWriter").field("data_rest", &self.data_rest).finish_non_exhaustive()
    }
}

impl<'w> TarWriter<'w> {
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, data_rest: 0, padding: 0 }
    }

    /// Writes a header. The data of the entry before it must be complete.
    ///
    /// # Errors
    /// `InvalidArgument` for what no archive can hold.
    pub fn start(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.end_data(entry)?;
        let mut records = Vec::new();
        let header = header(entry, &mut records)?;
        if !records.is_empty() {
            if records.len() as u64 > META_SIZE_MAX {
                return Err(unwritable(entry, "its attributes are too large"));
            }
            let mut extended = Header::new();
            extended.set_kind(b'x');
            extended.set_text(NAME, b"PaxHeaders.0");
            for (field, value) in [(MODE, 0o644), (UID, 0), (GID, 0), (MTIME, 0), (SIZE, records.len() as u64)] {
                extended.set_octal(field, value);
            }
            extended.seal();
            self.write(&extended.0)?;
            self.write(&records)?;
            self.write(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        self.write(&header.0)?;
        self.data_rest = if entry.kind == EntryKind::File { entry.size } else { 0 };
        self.padding = padding(self.data_rest);
        Ok(())
    }

    /// Writes data of the entry started last.
    ///
    /// # Errors
    /// `InvalidArgument` for more than its size.
    pub fn data(&mut self, data: &[u8]) -> Result<(), TarError> {
        let rest = self.data_rest.checked_sub(data.len() as u64);
        self.data_rest =
            rest.ok_or_else(|| TarError::Unwritable { name: String::new(), why: "it grew while it was read" })?;
        self.write(data)
    }

    /// Writes zeros as data of the entry started last.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn zeros(&mut self, mut count: u64) -> Result<(), TarError> {
        static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.data(&ZEROS[..length])?;
            count -= length as u64;
        }
        Ok(())
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// When the last entry's data is incomplete.
    pub fn finish(mut self) -> Result<(), TarError> {
        self.end_data(&Entry::default())?;
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(|source| TarError::Write { source })
    }

    fn end_data(&mut self, next: &Entry) -> Result<(), TarError> {
        if self.data_rest > 0 {
            return Err(unwritable(next, "the file before it shrank while it was read"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.write(&[0; BLOCK][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.out.write_all(bytes).map_err(|source| TarError::Write { source })
    }
}

fn unwritable(entry: &Entry, why: &'static str) -> TarError {
    TarError::Unwritable { name: String::from_utf8_lossy(&entry.path).into_owned(), why }
}

fn padding(size: u64) -> usize {
    let block = BLOCK as u64;
    usize::try_from((block - size % block) % block).unwrap_or(0)
}

/// The header of an entry, with what does not fit in records (sorted by key).
fn header(entry: &Entry, records: &mut Vec<u8>) -> Result<Header, TarError> {
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(unwritable(entry, "its name has a NUL"));
    }
    let mut header = Header::new();
    header.set_kind(entry.kind.type_byte());
    header.set_octal(MODE, u64::from(entry.mode & 0o7777));
    // Keys in order: SCHILY.xattr.*, gid, linkpath, mtime, path, size, uid.
    let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    for xattr in xattrs {
        if xattr.name.contains(&0) || xattr.name.contains(&b'=') {
            return Err(unwritable(entry, "the name of an attribute has a NUL or an equals sign"));
        }
        pax::push_xattr(records, xattr);
    }
    set_number(&mut header, GID, entry.gid, records, b"gid");
    if !header.set_text(LINK, &entry.link) {
        pax::push(records, b"linkpath", &entry.link);
    }
    let seconds = u64::try_from(entry.mtime.seconds);
    let is_whole = entry.mtime.nanoseconds == 0;
    if !(seconds.is_ok_and(|seconds| header.set_octal(MTIME, seconds)) && is_whole) {
        if header.number(MTIME) == Some(0) {
            header.set_octal(MTIME, 0);
        }
        pax::push(records, b"mtime", pax::time_text(entry.mtime).as_bytes());
    }
    set_path(&mut header, entry, records);
    let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
    set_number(&mut header, SIZE, size, records, b"size");
    set_number(&mut header, UID, entry.uid, records, b"uid");
    let has_devices = header.set_octal(DEVICE_MAJOR, u64::from(entry.device_major))
        && header.set_octal(DEVICE_MINOR, u64::from(entry.device_minor));
    if !has_devices {
        return Err(unwritable(entry, "its device number is too large"));
    }
    header.seal();
    Ok(header)
}

fn set_number(header: &mut Header, field: std::ops::Range<usize>, value: u64, records: &mut Vec<u8>, key: &[u8]) {
    if !header.set_octal(field.clone(), value) {
        header.set_octal(field, 0);
        pax::push(records, key, value.to_string().as_bytes());
    }
}

/// In the name field, split between prefix and name, or as a record with the end of the name in the field for old readers.
fn set_path(header: &mut Header, entry: &Entry, records: &mut Vec<u8>) {
    let path = &entry.path;
    if header.set_text(NAME, path) {
        return;
    }
    let split = path.iter().enumerate().rev().find(|(at, byte)| {
        **byte == b'/' && (1..=PREFIX.len()).contains(at) && (1..=NAME.len()).contains(&(path.len() - at - 1))
    });
    if let Some((slash, _)) = split {
        header.set_text(PREFIX, &path[..slash]);
        header.set_text(NAME, &path[slash + 1..]);
        return;
    }
    pax::push(records, b"path", path);
    header.set_text(NAME, &path[path.len() - NAME.len()..]);
}
