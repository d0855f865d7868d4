//! A blob on its way from a registry: a sparse file, a journal of the pieces that came, and readers that follow the bytes.
//!
//! ```text
//! <directory>/<hex>           the bytes, at their places
//! <directory>/<hex>.journal   4096 bytes of header (JSON, padded), then one byte per piece of 64 KiB: 0 missing, 1 written, 2 flushed
//! ```
//!
//! Format 1. A piece marked 1 is trusted after a crash of this process, one marked 2 also after a crash of the machine (the header names the
//! boot). Whatever the journal says: a blob is whole only when its digest was found right. The last piece is withheld from readers until then,
//! so who reads to the end has read what the digest promises.
//!
//! Lock: `state`, held for moments, never across I/O of the blob.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use berth_types::Digest;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::download::Fetch;
use crate::{RegistryError, Result};

const FORMAT: u32 = 1;
pub(crate) const PIECE_BYTES: u64 = 64 << 10;
const HEADER_BYTES: usize = 4096;
/// Flushed in steps of this many bytes.
const FLUSH_BYTES: u64 = 64 << 20;
/// What nobody came back for is thrown away.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
const MISSING: u8 = 0;
const WRITTEN: u8 = 1;
const FLUSHED: u8 = 2;

/// The partial blobs of one data root.
#[derive(Debug)]
pub struct Partials {
    directory: PathBuf,
    pub(crate) active: Mutex<HashMap<Digest, Weak<Fetch>>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    digest: Digest,
    size: u64,
    boot: String,
}

/// See the module.
#[derive(Debug)]
pub struct Partial {
    digest: Digest,
    size: u64,
    path: PathBuf,
    file: File,
    journal: File,
    state: Mutex<State>,
    changed: Condvar,
    done: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    pieces: Vec<u8>,
    /// Bytes of all pieces that came.
    received: u64,
    /// Pieces from the start without a gap.
    contiguous: usize,
    outcome: Option<std::result::Result<(), Arc<RegistryError>>>,
}

impl Partials {
    /// Makes the directory, and throws away what is older than a week or not ours.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = |operation| move |e| RegistryError::io(operation, directory, e);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create"))?;
        for entry in fs::read_dir(directory).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let is_ours = Digest::from_hex(name.strip_suffix(".journal").unwrap_or(name)).is_ok();
            let found = fs::symlink_metadata(&path).map_err(|e| RegistryError::io("stat", &path, e))?;
            let age = found.modified().ok();
            let age = age.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
            // With a second name it is in the content store; a crash came before the first was taken away.
            if !is_ours || age > KEPT_FOR || found.nlink() > 1 {
                fs::remove_file(&path).map_err(|e| RegistryError::io("remove", &path, e))?;
            }
        }
        Ok(Self { directory: directory.to_owned(), active: Mutex::default() })
    }

    /// Bytes that need not be fetched again, when a fetch of this blob was interrupted.
    pub fn kept_bytes(&self, digest: &Digest, size: u64) -> u64 {
        if let Some(fetch) = self.active.lock().get(digest).and_then(Weak::upgrade) {
            return fetch.partial().received_bytes();
        }
        let journal = fs::read(self.directory.join(format!("{}.journal", digest.hex()))).ok();
        let pieces = journal.and_then(|bytes| pieces_of(&bytes, digest, size));
        pieces.map_or(0, |pieces| received(&pieces, size))
    }

    /// The blob has a place elsewhere now: its partial file is not needed any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        // The bytes first: a journal without them is worth nothing, they without it would be begun again.
        remove(&self.directory.join(digest.hex()))?;
        remove(&self.directory.join(format!("{}.journal", digest.hex())))
    }

    /// Digests of all partial blobs, for housekeeping.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let failed = |e| RegistryError::io("list", &self.directory, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
        }
        Ok(found)
    }

    pub(crate) fn begin(&self, digest: &Digest, size: u64) -> Result<Partial> {
        Partial::open(&self.directory, digest, size)
    }
}

impl Partial {
    fn open(directory: &Path, digest: &Digest, size: u64) -> Result<Self> {
        let path = directory.join(digest.hex());
        let journal_path = directory.join(format!("{}.journal", digest.hex()));
        let journal_failed = |e| RegistryError::io("use", &journal_path, e);
        // A file with a second name is in the content store: it is never written again.
        let is_ours = fs::symlink_metadata(&path).is_ok_and(|f| f.is_file() && f.len() == size && f.nlink() == 1);
        let known = fs::read(&journal_path).ok().and_then(|bytes| pieces_of(&bytes, digest, size)).filter(|_| is_ours);
        if known.is_none() {
            remove(&path)?;
            remove(&journal_path)?;
        }
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(path).map_err(|e| RegistryError::io("open", path, e))
        };
        let (file, journal) = (open(&path)?, open(&journal_path)?);
        let pieces = known.unwrap_or_else(|| vec![MISSING; count(size)]);
        file.set_len(size).map_err(|e| RegistryError::io("extend", &path, e))?;
        let header = Header { format: FORMAT, digest: *digest, size, boot: boot_id() };
        let mut head = serde_json::to_vec(&header).expect("a header is always JSON");
        head.resize(HEADER_BYTES, b' ');
        journal.set_len(0).and_then(|()| journal.write_all_at(&head, 0)).map_err(journal_failed)?;
        journal.write_all_at(&pieces, HEADER_BYTES as u64).map_err(journal_failed)?;
        let contiguous = pieces.iter().take_while(|piece| **piece != MISSING).count();
        let state = State { received: received(&pieces, size), contiguous, pieces, outcome: None };
        let (state, changed, done) = (Mutex::new(state), Condvar::new(), tokio::sync::Notify::new());
        Ok(Self { digest: *digest, size, path, file, journal, state, changed, done })
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Where the bytes are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn received_bytes(&self) -> u64 {
        self.state.lock().received
    }

    pub fn is_verified(&self) -> bool {
        matches!(self.state.lock().outcome, Some(Ok(())))
    }

    /// All bytes came; their digest may still be taken.
    pub fn is_complete(&self) -> bool {
        let state = self.state.lock();
        state.contiguous == state.pieces.len()
    }

    /// Byte ranges that are missing, in order.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        let state = self.state.lock();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (index, _) in state.pieces.iter().enumerate().filter(|(_, piece)| **piece == MISSING) {
            let range = piece_range(index, self.size);
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| RegistryError::io("write", &self.path, e))
    }

    /// The bytes of this range are written: its whole pieces are journaled.
    pub(crate) fn mark(&self, range: Range<u64>) -> Result<()> {
        let first = usize::try_from(range.start.div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX);
        let end = if range.end == self.size { count(self.size) } else { index_of(range.end) };
        if first >= end {
            return Ok(());
        }
        let mut state = self.state.lock();
        for index in first..end {
            if state.pieces[index] != MISSING {
                continue;
            }
            self.journal
                .write_all_at(&[WRITTEN], (HEADER_BYTES + index) as u64)
                .map_err(|e| RegistryError::io("journal", &self.path, e))?;
            let range = piece_range(index, self.size);
            state.received += range.end - range.start;
            state.pieces[index] = WRITTEN;
        }
        while state.pieces.get(state.contiguous).is_some_and(|piece| *piece != MISSING) {
            state.contiguous += 1;
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A reader of its own from the first byte; it waits for bytes that have not come yet.
    pub fn reader(self: &Arc<Self>) -> PartialReader {
        PartialReader { partial: Arc::clone(self), at: 0, is_withheld: true }
    }

    /// Follows the bytes to the end and takes their digest; what came is flushed on the way. Blocks.
    pub(crate) fn verify(self: &Arc<Self>) -> Result<()> {
        let mut reader = PartialReader { partial: Arc::clone(self), at: 0, is_withheld: false };
        let mut hasher = sha2::Sha256::new();
        let mut piece = vec![0; 256 << 10];
        let mut flushed = 0;
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => hasher.update(&piece[..n]),
                Err(_) if self.is_failed() => return Err(RegistryError::GivenUp { digest: self.digest }),
                Err(e) => return Err(RegistryError::io("read", &self.path, e)),
            }
            if reader.at - flushed >= FLUSH_BYTES {
                self.flush(flushed, reader.at)?;
                flushed = reader.at;
            }
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != self.digest {
            let what = format!("blob {}", self.digest.short());
            return Err(RegistryError::WrongDigest { what, expected: self.digest, found });
        }
        self.flush(flushed, self.size)
    }

    fn flush(&self, from: u64, to: u64) -> Result<()> {
        let failed = |e| RegistryError::io("flush", &self.path, e);
        self.file.sync_data().map_err(failed)?;
        let (first, end) = (index_of(from), index_of(to));
        let marks = vec![FLUSHED; end - first];
        self.journal.write_all_at(&marks, (HEADER_BYTES + first) as u64).map_err(failed)?;
        Ok(())
    }

    /// Why the bytes will not come.
    pub fn failure(&self) -> Option<RegistryError> {
        match &self.state.lock().outcome {
            Some(Err(error)) => Some(RegistryError::Shared(Arc::clone(error))),
            _ => None,
        }
    }

    fn is_failed(&self) -> bool {
        matches!(self.state.lock().outcome, Some(Err(_)))
    }

    /// The first outcome counts; everybody who waits learns it.
    pub(crate) fn settle(&self, outcome: Result<()>) {
        let mut state = self.state.lock();
        if matches!(outcome, Err(RegistryError::WrongDigest { .. })) {
            self.forget();
        }
        state.outcome.get_or_insert(outcome.map_err(Arc::new));
        drop(state);
        self.changed.notify_all();
        self.done.notify_waiters();
    }

    /// What turned out wrong is not resumed.
    fn forget(&self) {
        // What cannot be removed is overwritten: the journal says that nothing came.
        drop(self.journal.set_len(0));
        drop(fs::remove_file(self.path.with_extension("journal")));
        drop(fs::remove_file(&self.path));
    }

    /// Waits like [`Self::verified`], on a thread that may block.
    ///
    /// # Errors
    /// Why the bytes did not come.
    pub fn wait_verified(&self) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone().map_err(RegistryError::Shared);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits until all bytes came and have their digest.
    ///
    /// # Errors
    /// Why they did not.
    pub async fn verified(&self) -> Result<()> {
        loop {
            let notified = self.done.notified();
            if let Some(outcome) = &self.state.lock().outcome {
                return outcome.clone().map_err(RegistryError::Shared);
            }
            notified.await;
        }
    }
}

/// Follows a [`Partial`]; at its end the digest was found right.
#[derive(Debug)]
pub struct PartialReader {
    partial: Arc<Partial>,
    at: u64,
    is_withheld: bool,
}

impl PartialReader {
    /// How far can be read now; waits until that is further than we are.
    fn limit(&self) -> io::Result<u64> {
        let partial = &self.partial;
        let mut state = partial.state.lock();
        loop {
            let is_verified = match &state.outcome {
                Some(Err(error)) => return Err(io::Error::other(RegistryError::Shared(Arc::clone(error)))),
                Some(Ok(())) => true,
                None => false,
            };
            let withheld = usize::from(self.is_withheld && !is_verified);
            let pieces = state.contiguous.min(state.pieces.len().saturating_sub(withheld));
            let limit = (pieces as u64 * PIECE_BYTES).min(partial.size);
            if limit > self.at || (limit == partial.size && (is_verified || !self.is_withheld)) {
                return Ok(limit);
            }
            partial.changed.wait(&mut state);
        }
    }
}

impl Read for PartialReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.limit()? - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let n = self.partial.file.read_at(&mut buffer[..len], self.at)?;
        if n == 0 && len > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RegistryError::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn count(size: u64) -> usize {
    usize::try_from(size.div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX)
}

fn index_of(offset: u64) -> usize {
    usize::try_from(offset / PIECE_BYTES).unwrap_or(usize::MAX)
}

fn piece_range(index: usize, size: u64) -> Range<u64> {
    let start = index as u64 * PIECE_BYTES;
    start..(start + PIECE_BYTES).min(size)
}

fn received(pieces: &[u8], size: u64) -> u64 {
    let there = pieces.iter().enumerate().filter(|(_, piece)| **piece != MISSING);
    there.map(|(index, _)| piece_range(index, size)).map(|range| range.end - range.start).sum()
}

/// What a journal says that can be trusted now.
fn pieces_of(journal: &[u8], digest: &Digest, size: u64) -> Option<Vec<u8>> {
    let (head, pieces) = journal.split_at_checked(HEADER_BYTES)?;
    let header: Header = serde_json::from_slice(head).ok()?;
    if header.format != FORMAT || header.digest != *digest || header.size != size || pieces.len() != count(size) {
        return None;
    }
    let trusted = if header.boot == boot_id() { WRITTEN } else { FLUSHED };
    Some(pieces.iter().map(|piece| if *piece >= trusted && *piece <= FLUSHED { *piece } else { MISSING }).collect())
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests;
