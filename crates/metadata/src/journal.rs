//! What was written since the database file was last flushed: a durable write costs one block in place and one flush of it, where the
//! database would write its changed pages and its header first.
//!
//! A file of fixed size beside the database. It is filled with zeros once, so that its blocks are allocated: a record fits on a full disk, and a
//! flush has no metadata of the file system to wait for. A record begins at a multiple of [`BLOCK_BYTES`]; so no block of an acknowledged
//! record is written again before the database has it.
//!
//! A record, little endian: generation (16 bytes), sequence (u32), length of the payload (u32), 8 zeros, SHA-256 of the record before it and of
//! all of this one (32 bytes), payload. The database names the generation whose records it lacks; a flush of it names a new one, which makes all
//! that lies here stale without touching it. Chained, a record cannot follow one that was written anew after a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

use crate::error::is_full;
use crate::schema::{FILE_MODE, flush_directory};

/// Of all records together. More is flushed to the database first.
const JOURNAL_BYTES: usize = 512 << 10;
/// What a disk or the kernel's cache writes at once.
const BLOCK_BYTES: usize = 4096;
const HEADER_BYTES: usize = 64;
/// Of the buffer that records are laid out in.
const KEPT_BYTES: usize = 8 * BLOCK_BYTES;
const HASH_AT: usize = 32;

/// Names the records that a state of the database lacks.
pub(crate) type Generation = [u8; 16];

/// A generation that no database ever had.
pub(crate) fn fresh_generation() -> io::Result<Generation> {
    let mut generation = Generation::default();
    getrandom(&mut generation[..], GetRandomFlags::empty())?;
    Ok(generation)
}

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// How much of it is allocated: less than [`JOURNAL_BYTES`] where the disk had no room.
    capacity: usize,
    generation: Generation,
    position: Position,
    record: Vec<u8>,
}

/// Where the next record goes, and what it follows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    /// Of the last record.
    hash: [u8; 32],
    sequence: u32,
    end: usize,
}

impl Position {
    fn behind(self, hash: [u8; 32], record_len: usize) -> Self {
        Self { hash, sequence: self.sequence.wrapping_add(1), end: self.end + record_len.next_multiple_of(BLOCK_BYTES) }
    }
}

impl Journal {
    /// Opens or makes the file, and returns the payloads of this generation in their order. The next record follows them.
    pub(crate) fn open(path: PathBuf, generation: Generation) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let capacity = bytes.len();
        let mut journal = Self { path, file, capacity, generation, position: Position::default(), record: Vec::new() };
        let mut payloads = Vec::new();
        while let Some(payload) = journal.next_of(&bytes) {
            payloads.push(payload);
        }
        journal.allocate()?;
        Ok((journal, payloads))
    }

    /// Brings the file to its size with blocks that are allocated and written. A full disk is no error.
    fn allocate(&mut self) -> io::Result<()> {
        let missing = vec![0; JOURNAL_BYTES.saturating_sub(self.capacity)];
        if missing.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(&missing, self.capacity as u64);
        match written.and_then(|()| self.file.sync_all()).and_then(|()| flush_directory(&self.path)) {
            Ok(()) => self.capacity = JOURNAL_BYTES,
            Err(error) => {
                self.file.set_len(self.capacity as u64)?;
                if !is_full(&error) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether a payload fits at all.
    pub(crate) const fn can_hold(&self, payload_len: usize) -> bool {
        HEADER_BYTES + payload_len <= self.capacity
    }

    /// Whether a payload fits behind what is here.
    pub(crate) const fn has_room(&self, payload_len: usize) -> bool {
        HEADER_BYTES + payload_len <= self.capacity.saturating_sub(self.position.end)
    }

    /// The database has everything: the records here are stale.
    pub(crate) fn restart(&mut self, generation: Generation) {
        (self.generation, self.position) = (generation, Position::default());
        // There may be room now that was not there when it was opened; without, the database is flushed in its place.
        drop(self.allocate());
    }

    /// Writes a record, `is_flushed`: to the disk. It survives the end of this process either way. After an error it is not there. Returns what
    /// [`Self::take_back`] needs.
    pub(crate) fn append(&mut self, payload: &[u8], is_flushed: bool) -> io::Result<Position> {
        let before = self.position;
        let hash = self.lay_out(payload);
        let written = self.file.write_all_at(&self.record, before.end as u64);
        self.position = before.behind(hash, self.record.len());
        self.record.clear();
        self.record.shrink_to(KEPT_BYTES);
        if let Err(error) = written.and_then(|()| if is_flushed { self.file.sync_data() } else { Ok(()) }) {
            self.take_back(before);
            return Err(error);
        }
        Ok(before)
    }

    /// The last record is not to be there. Where the disk refuses that, too, a crash brings it back at most: nobody was told that it is gone for good.
    pub(crate) fn take_back(&mut self, before: Position) {
        self.position = before;
        drop(self.file.write_all_at(&[0; HEADER_BYTES], before.end as u64));
    }

    fn lay_out(&mut self, payload: &[u8]) -> [u8; 32] {
        let record = &mut self.record;
        record.clear();
        record.extend_from_slice(&self.generation);
        record.extend_from_slice(&self.position.sequence.to_le_bytes());
        record.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.resize(HASH_AT, 0);
        let hash = chained(&self.position.hash, record, payload);
        record.extend_from_slice(&hash);
        record.extend_from_slice(payload);
        record.resize(record.len().next_multiple_of(BLOCK_BYTES), 0);
        hash
    }

    /// The payload at the end of what was read, and takes it as read.
    fn next_of(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = bytes.get(self.position.end..)?.split_at_checked(HEADER_BYTES)?;
        let (head, hash) = header.split_at(HASH_AT);
        let (generation, rest_of_head) = head.split_first_chunk::<16>()?;
        let (sequence, rest_of_head) = rest_of_head.split_first_chunk::<4>()?;
        let (payload_len, _) = rest_of_head.split_first_chunk::<4>()?;
        if *generation != self.generation || u32::from_le_bytes(*sequence) != self.position.sequence {
            return None;
        }
        let payload = rest.get(..usize::try_from(u32::from_le_bytes(*payload_len)).ok()?)?;
        let expected = chained(&self.position.hash, head, payload);
        if hash != expected {
            return None;
        }
        self.position = self.position.behind(expected, HEADER_BYTES + payload.len());
        Some(payload.to_vec())
    }
}

fn chained(before: &[u8; 32], head: &[u8], payload: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(head).chain_update(payload).finalize().into()
}
