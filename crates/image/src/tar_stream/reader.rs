//! Reading an archive from a stream, one entry at a time.

use std::io::{self, Read};

use super::entry::{Entry, EntryKind};
use super::header::{DEVICE_MAJOR, DEVICE_MINOR, Format, GID, Header, LINK, MODE, MTIME, SIZE, UID, until_nul};
use super::pax::{self, PaxRecords};
use super::sparse::{self, MapText, Piece};
use super::{BLOCK, META_SIZE_MAX, Mtime, TarError};

const BUFFER_SIZE: usize = 128 << 10;

/// An archive being read. After [`Self::next_entry`] its data can be taken with [`Self::next_piece`]; what is not taken is skipped.
pub struct TarReader<'r> {
    input: &'r mut dyn Read,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    entry: Entry,
    entries: u64,
    /// Stored bytes of the current entry not yet given out, and the zeros after them.
    stored_rest: u64,
    padding: u64,
    pieces: Vec<Piece>,
    piece: usize,
    piece_done: u64,
    is_finished: bool,
}

impl std::fmt::Debug for TarReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarReader").field("entry", &self.entry).field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// What was read before the header an entry really has.
#[derive(Default)]
struct Prelude {
    pax: Option<PaxRecords>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'r> TarReader<'r> {
    /// Reads ahead of what it gives out: do not use `input` for anything else.
    pub fn new(input: &'r mut dyn Read) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER_SIZE].into_boxed_slice(),
            start: 0,
            end: 0,
            entry: Entry::default(),
            entries: 0,
            stored_rest: 0,
            padding: 0,
            pieces: Vec::new(),
            piece: 0,
            piece_done: 0,
            is_finished: false,
        }
    }

    /// The entry that was read last.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Reads the next header; false at the end of the archive. Entries with types that no file has are refused.
    ///
    /// # Errors
    /// `InvalidArgument` where the archive is damaged or ambiguous.
    pub fn next_entry(&mut self) -> Result<bool, TarError> {
        self.skip_data()?;
        if self.is_finished {
            return Ok(false);
        }
        self.entries += 1;
        let mut prelude = Prelude::default();
        loop {
            let Some(header) = self.header()? else {
                self.is_finished = true;
                let is_clean = prelude.pax.is_none() && prelude.long_name.is_none() && prelude.long_link.is_none();
                return if is_clean { Ok(false) } else { Err(self.invalid("extended header without an entry")) };
            };
            match header.kind() {
                b'x' => {
                    let records = self.meta(&header)?;
                    let parsed = pax::parse(&records).map_err(|why| self.invalid(why))?;
                    self.set_once(&mut prelude.pax, parsed)?;
                }
                b'g' => {
                    let records = self.meta(&header)?;
                    pax::check_global(&records).map_err(|why| self.invalid(why))?;
                }
                b'L' => {
                    let name = self.meta(&header)?;
                    self.set_once(&mut prelude.long_name, until_nul(&name).to_vec())?;
                }
                b'K' => {
                    let link = self.meta(&header)?;
                    self.set_once(&mut prelude.long_link, until_nul(&link).to_vec())?;
                }
                _ => {
                    self.start_entry(&header, prelude)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The next bytes of the current entry's data and where they go in the file; `None` at its end. Holes are left out.
    ///
    /// # Errors
    /// `InvalidArgument` when the archive ends before the data does.
    pub fn next_piece(&mut self) -> Result<Option<(u64, &[u8])>, TarError> {
        while self.pieces.get(self.piece).is_some_and(|piece| piece.length == self.piece_done) {
            self.piece += 1;
            self.piece_done = 0;
        }
        let Some(piece) = self.pieces.get(self.piece).copied() else { return Ok(None) };
        if self.start == self.end && !self.fill()? {
            return Err(TarError::Truncated { entry: self.entries });
        }
        let wanted = piece.length - self.piece_done;
        let available = self.end - self.start;
        let length = usize::try_from(wanted).unwrap_or(usize::MAX).min(available);
        let offset = piece.offset + self.piece_done;
        self.piece_done += length as u64;
        self.stored_rest -= length as u64;
        self.start += length;
        Ok(Some((offset, &self.buffer[self.start - length..self.start])))
    }

    fn start_entry(&mut self, header: &Header, prelude: Prelude) -> Result<(), TarError> {
        let pax = prelude.pax.unwrap_or_default();
        let has_two_names = prelude.long_name.is_some() && pax.path.is_some();
        if has_two_names || (prelude.long_link.is_some() && pax.link.is_some()) {
            return Err(self.invalid("two long names for one entry"));
        }
        self.fill_metadata(header, &pax)?;
        header.name_into(&mut self.entry.path);
        if let Some(path) = prelude.long_name.or(pax.path) {
            self.entry.path = path;
        }
        self.entry.link.clear();
        match prelude.long_link.or(pax.link) {
            Some(link) => self.entry.link = link,
            None => self.entry.link.extend_from_slice(header.text(LINK)),
        }
        self.entry.xattrs = pax.xattrs;
        self.entry.kind = self.kind(header)?;
        let stored = match pax.size {
            Some(size) => size,
            None => self.natural(header, SIZE, "bad size")?,
        };
        self.start_data(header, stored, pax.sparse)
    }

    fn fill_metadata(&mut self, header: &Header, pax: &PaxRecords) -> Result<(), TarError> {
        let mode = self.natural(header, MODE, "bad mode")?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        let id = |given: Option<u64>, field| match given {
            Some(id) => Ok(id),
            None => self.natural(header, field, "bad owner"),
        };
        let (uid, gid) = (id(pax.uid, UID)?, id(pax.gid, GID)?);
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Mtime { seconds: header.number(MTIME).ok_or_else(|| self.invalid("bad time"))?, nanoseconds: 0 },
        };
        let device = |field| {
            if header.format() == Format::V7 || !matches!(header.kind(), b'3' | b'4') {
                return Ok(0);
            }
            let number = self.natural(header, field, "bad device number")?;
            u32::try_from(number).map_err(|_| self.invalid("bad device number"))
        };
        let (device_major, device_minor) = (device(DEVICE_MAJOR)?, device(DEVICE_MINOR)?);
        let Entry { path, link, .. } = std::mem::take(&mut self.entry);
        self.entry = Entry { mode, uid, gid, mtime, device_major, device_minor, path, link, ..Entry::default() };
        Ok(())
    }

    fn kind(&self, header: &Header) -> Result<EntryKind, TarError> {
        Ok(match header.kind() {
            // Before POSIX a directory was a file with a slash at its end.
            0 if self.entry.path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarError::Kind { entry: self.entries, kind: char::from(other) }),
        })
    }

    fn start_data(&mut self, header: &Header, stored: u64, pax: pax::PaxSparse) -> Result<(), TarError> {
        self.pieces.clear();
        (self.piece, self.piece_done) = (0, 0);
        if self.entry.kind != EntryKind::File {
            (self.stored_rest, self.padding) = (0, 0);
            return Ok(());
        }
        self.stored_rest = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        let invalid = |entry| move |why| TarError::Invalid { entry, why };
        let invalid = invalid(self.entries);
        let real_size = match (header.kind(), pax.major, pax.minor) {
            (b'S', ..) => self.gnu_sparse_map(header)?,
            (_, Some(1), Some(0)) => {
                let real_size = pax.real_size.ok_or_else(|| invalid("sparse file without a size"))?;
                self.map_in_data()?;
                real_size
            }
            (_, None | Some(0), _) if pax.has_map => {
                self.pieces = sparse::from_records(&pax).map_err(invalid)?;
                pax.real_size.ok_or_else(|| invalid("sparse file without a size"))?
            }
            (_, None, None) if pax.real_size.is_none() => {
                self.pieces.push(Piece { offset: 0, length: stored });
                stored
            }
            _ => return Err(invalid("sparse file of an unknown version")),
        };
        if let Some(name) = pax.name {
            self.entry.path = name;
        }
        self.entry.size = real_size;
        sparse::check(&self.pieces, real_size, self.stored_rest).map_err(invalid)
    }

    /// Blocks of the map that follow an old GNU header are not part of the stored size.
    fn gnu_sparse_map(&mut self, header: &Header) -> Result<u64, TarError> {
        let mut pieces = Vec::new();
        let invalid = |entry| move |why| TarError::Invalid { entry, why };
        let invalid = invalid(self.entries);
        let (real_size, mut more) = sparse::from_gnu_header(header, &mut pieces).map_err(invalid)?;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated { entry: self.entries })?;
            more = sparse::from_gnu_block(&block, &mut pieces).map_err(invalid)?;
        }
        self.pieces = pieces;
        Ok(real_size)
    }

    /// The map of version 1.0 is part of the stored size.
    fn map_in_data(&mut self) -> Result<(), TarError> {
        let mut text = MapText::default();
        for _ in 0..META_SIZE_MAX / BLOCK as u64 {
            let Some(rest) = self.stored_rest.checked_sub(BLOCK as u64) else { break };
            let block = self.block()?.ok_or(TarError::Truncated { entry: self.entries })?;
            self.stored_rest = rest;
            if let Some(pieces) = text.feed(&block).map_err(|why| self.invalid(why))? {
                self.pieces = pieces;
                return Ok(());
            }
        }
        Err(self.invalid("bad sparse map"))
    }

    fn natural(&self, header: &Header, field: std::ops::Range<usize>, why: &'static str) -> Result<u64, TarError> {
        header.number(field).and_then(|number| u64::try_from(number).ok()).ok_or_else(|| self.invalid(why))
    }

    fn set_once<T>(&self, field: &mut Option<T>, value: T) -> Result<(), TarError> {
        if field.is_some() {
            return Err(self.invalid("the same extended header twice"));
        }
        *field = Some(value);
        Ok(())
    }

    /// The data of a header that belongs to the next one.
    fn meta(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = self.natural(header, SIZE, "bad size")?;
        if size > META_SIZE_MAX {
            return Err(self.invalid("extended header over 1 MiB"));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_exact(&mut data)?;
        self.skip((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64)?;
        Ok(data)
    }

    /// The next header; `None` at the end: two zero blocks, or the input's end between entries.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block == [0; BLOCK] {
            return match self.block()? {
                Some(second) if second != [0; BLOCK] => Err(self.invalid("a lone zero block")),
                _ => Ok(None),
            };
        }
        let header = Header(block);
        if !header.has_right_checksum() {
            return Err(self.invalid("wrong header checksum"));
        }
        Ok(Some(header))
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.start == self.end && !self.fill()? {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(Some(block))
    }

    fn read_exact(&mut self, mut out: &mut [u8]) -> Result<(), TarError> {
        while !out.is_empty() {
            if self.start == self.end && !self.fill()? {
                return Err(TarError::Truncated { entry: self.entries });
            }
            let length = out.len().min(self.end - self.start);
            out[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
            self.start += length;
            out = &mut out[length..];
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let rest = self.stored_rest.saturating_add(self.padding);
        (self.stored_rest, self.padding) = (0, 0);
        self.skip(rest)
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            if self.start == self.end && !self.fill()? {
                return Err(TarError::Truncated { entry: self.entries });
            }
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(self.end - self.start);
            self.start += length;
            count -= length as u64;
        }
        Ok(())
    }

    /// Reads more input into the empty buffer; false at its end.
    fn fill(&mut self) -> Result<bool, TarError> {
        (self.start, self.end) = (0, 0);
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(length) => {
                    self.end = length;
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { entry: self.entries, source }),
            }
        }
    }

    fn invalid(&self, why: &'static str) -> TarError {
        TarError::Invalid { entry: self.entries, why }
    }
}
