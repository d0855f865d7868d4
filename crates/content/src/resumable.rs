//! Ingests with a reference: content that arrives in pieces, perhaps over several lives of the process, and becomes one verified blob.
//!
//! ```text
//! <ingest>/<sha256 of namespace NUL reference>/about.json   who it is for and what it must become; written before the first byte
//!                                              data         the bytes, at their offsets
//!                                              journal      "boot <id>", "<start> <end>", "synced <start> <end>": what of `data` can
//!                                                           be trusted; a bare "synced" means all ranges above it
//! ```
//!
//! This is also where blobs are while they come from a registry: several writers, each with ranges of its own, and readers that follow them.
//! A range is noted after its bytes were written, in steps of `NOTE_BYTES` (see `journal`). After a crash of the process every noted range is there (the kernel
//! has it); after a crash of the host only what a `synced` line vouches for is, which is written behind an `fdatasync`, by [`ResumableIngest::sync`]
//! and after every [`SYNC_BYTES`] that were appended. Whatever was kept, the digest is taken of the bytes as they are read back at the end. Data
//! with a second name is in the store already and is never written again.
//!
//! The files are open from their first use until [`ResumableIngest::rest`]: of very many ingests only those are open that somebody works on. Lock
//! order: `claim`, `state`, `data`; none is held while bytes are written or flushed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use berth_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::ingest::{Draft, Staged};
use crate::{ContentError, Expected, PIECE_BYTES, Result};

mod journal;
mod ranges;

use journal::trusted;
pub(crate) use ranges::Ranges;
use ranges::overlap;

const FORMAT: u32 = 1;
/// What a crash of the host can cost of one ingest.
pub const SYNC_BYTES: u64 = 16 << 20;
const ABOUT_BYTES_MAX: u64 = 64 << 10;

/// How far an ingest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestStatus {
    pub namespace: String,
    pub reference: String,
    /// Bytes from the start without a gap: where an appending writer goes on.
    pub offset: u64,
    /// All bytes that are there, with gaps between them.
    pub bytes: u64,
    /// What the whole will be, when it is known.
    pub total: Option<u64>,
    pub expected: Option<Digest>,
    pub started: Timestamp,
    pub updated: Timestamp,
}

/// Format 1 of `about.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    format: u32,
    namespace: String,
    reference: String,
    total: Option<u64>,
    expected: Option<Digest>,
    started_ns: i64,
}

#[derive(Debug)]
struct State {
    about: About,
    /// All that was written.
    ranges: Ranges,
    /// Open whenever something is unnoted.
    journal: Option<File>,
    /// Lines in the journal.
    notes: u32,
    /// Written since the last note, and since the last sync.
    unnoted: Ranges,
    unsynced: u64,
    /// What writers are writing at this moment.
    writing: Vec<Range<u64>>,
    /// How often it began from nothing since it was opened.
    restarts: u64,
    updated: Timestamp,
}

/// An ingest that outlives its process. Shared by threads: each may write its own ranges. Dropped: it stays and can be opened again.
#[derive(Debug)]
pub struct ResumableIngest {
    home: PathBuf,
    data: Mutex<Option<Arc<File>>>,
    state: Mutex<State>,
    /// A writer is done with its range.
    wrote: Condvar,
    /// Given back to the store when the ingest is dropped or retired.
    claim: Mutex<Option<Claim>>,
}

/// Only one opener at a time.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) claims: std::sync::Arc<Mutex<std::collections::HashSet<String>>>,
    pub(crate) name: String,
}

impl Claim {
    pub(crate) fn take(
        claims: &std::sync::Arc<Mutex<std::collections::HashSet<String>>>,
        name: &str,
        reference: &str,
    ) -> Result<Self> {
        if !claims.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Err(ContentError::Locked { reference: reference.to_owned() });
        }
        Ok(Self { claims: std::sync::Arc::clone(claims), name: name.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// The directory name of a reference.
pub(crate) fn home_name(namespace: &str, reference: &str) -> String {
    let mut hasher = sha2::Sha256::new();
    hasher.update(namespace.as_bytes());
    hasher.update([0]);
    hasher.update(reference.as_bytes());
    Digest::from_bytes(hasher.finalize().into()).hex()
}

impl ResumableIngest {
    /// Opens what is there, or begins; begins also where the data was taken over as a blob. What the caller expects replaces what an earlier opener
    /// expected.
    pub(crate) fn open(
        home: &Path,
        namespace: &str,
        reference: &str,
        expected: Expected,
        claim: Claim,
        is_taken_over: bool,
    ) -> Result<Self> {
        let known = load_about(home)?.filter(|about| about.namespace == namespace && about.reference == reference);
        let known = known.filter(|_| !is_taken_over);
        let is_new = known.is_none();
        let mut about = known.unwrap_or_else(|| About {
            format: FORMAT,
            namespace: namespace.to_owned(),
            reference: reference.to_owned(),
            total: None,
            expected: None,
            started_ns: Timestamp::now().0,
        });
        let changes = expected.size_bytes.is_some_and(|total| about.total != Some(total))
            || expected.digest.is_some_and(|digest| about.expected != Some(digest));
        about.total = expected.size_bytes.or(about.total);
        about.expected = expected.digest.or(about.expected);
        if is_new {
            begin(home)?;
        }
        if is_new || changes {
            store_about(home, &about)?;
        }
        let data = open_file(&home.join("data"), false)?;
        let (ranges, updated) = trusted(home, &data)?;
        let state = State {
            about,
            ranges,
            journal: None,
            notes: 0,
            unnoted: Ranges::default(),
            unsynced: 0,
            writing: Vec::new(),
            restarts: 0,
            updated,
        };
        let (data, state) = (Mutex::new(Some(Arc::new(data))), Mutex::new(state));
        let claim = Mutex::new(Some(claim));
        let ingest = Self { home: home.to_owned(), data, state, wrote: Condvar::new(), claim };
        ingest.rewrite_journal(&mut ingest.state())?;
        Ok(ingest)
    }

    pub fn status(&self) -> IngestStatus {
        let state = self.state();
        status_of(&state.about, &state.ranges, state.updated)
    }

    /// Writes at the end of what there is without a gap, and flushes now and then. Returns the new offset.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let at = self.state().ranges.prefix();
        self.write_bytes(at, bytes)?;
        let end = at + bytes.len() as u64;
        if self.written(at..end)?.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(end)
    }

    /// Writes a range. What is there stays as it is: who took a digest of it may rely on that until [`Self::restart`]. Nothing is flushed; that is
    /// the caller's, by [`Self::sync`].
    ///
    /// # Errors
    /// `InvalidArgument` beyond the known size; when the disk refuses.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_lives()?;
        let end = offset.saturating_add(bytes.len() as u64);
        let (gaps, restarts) = {
            let mut state = self.state();
            if let Some(expected) = state.about.total.filter(|total| end > *total) {
                return Err(ContentError::WrongSize { expected, found: end });
            }
            while state.writing.iter().any(|other| overlap(other, &(offset..end))) {
                state = self.wrote.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let gaps = state.ranges.missing_of(offset..end);
            state.writing.extend(gaps.iter().cloned());
            (gaps, state.restarts)
        };
        let part = |gap: &Range<u64>| {
            let at = |at: u64| usize::try_from(at - offset).expect("no longer than the slice");
            &bytes[at(gap.start)..at(gap.end)]
        };
        let written = gaps.iter().try_for_each(|gap| self.write_bytes(gap.start, part(gap)));
        let mut state = self.state();
        if state.restarts == restarts {
            state.writing.retain(|range| !gaps.contains(range));
            self.wrote.notify_all();
            written?;
            gaps.into_iter().try_for_each(|gap| self.note_written(&mut state, gap))?;
        }
        Ok(())
    }

    /// Bytes from the start without a gap, and all bytes that are there.
    pub fn extent(&self) -> (u64, u64) {
        let state = self.state();
        (state.ranges.prefix(), state.ranges.bytes())
    }

    /// Ends it although others still read it: its directory goes, and its reference is free for another ingest. Nobody writes any more.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn retire(&self) -> Result<()> {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.take().is_some() {
            // Who goes on reading has no name to open it by any more.
            drop(self.data());
            fs::remove_dir_all(&self.home).map_err(|e| ContentError::io("remove", &self.home, e))?;
        }
        Ok(())
    }

    /// Closes its files until somebody reads or writes again. What was written is noted.
    ///
    /// # Errors
    /// When the disk refuses the note.
    pub fn rest(&self) -> Result<()> {
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.is_none() {
            return Ok(());
        }
        let mut state = self.state();
        state.note().map_err(|e| self.journal_error(e))?;
        state.journal = None;
        self.data.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }

    fn check_lives(&self) -> Result<()> {
        if self.claim.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(ContentError::NoIngest { reference: self.state().about.reference.clone() });
        }
        Ok(())
    }

    /// Where the bytes are.
    pub fn path(&self) -> PathBuf {
        self.home.join("data")
    }

    /// What is not there yet of `total` bytes, in order.
    pub fn missing(&self, total: u64) -> Vec<Range<u64>> {
        self.state().ranges.missing(total)
    }

    /// Reads what was written; for a reader that follows the writers. Bytes in gaps are zeros.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.data()?.read_at(buffer, offset).map_err(|e| ContentError::io("read", &self.home.join("data"), e))
    }

    /// Begins from nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn restart(&self) -> Result<()> {
        let mut state = self.state();
        state.ranges = Ranges::default();
        state.unnoted = Ranges::default();
        state.updated = Timestamp::now();
        state.restarts += 1;
        state.writing.clear();
        self.wrote.notify_all();
        self.rewrite_journal(&mut state)?;
        // Another file: who is still writing to the old one writes to nothing.
        let (path, draft) = (self.path(), self.home.join("data-new"));
        let fresh = open_file(&draft, false)?;
        fs::rename(&draft, &path).map_err(|e| ContentError::io("name", &path, e))?;
        *self.data.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(fresh));
        Ok(())
    }

    /// Makes all that was written so far survive a crash of the host. Writers and readers go on meanwhile.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<()> {
        let (flushed, unsynced) = {
            let mut state = self.state();
            state.note().map_err(|e| self.journal_error(e))?;
            (state.ranges.clone(), std::mem::take(&mut state.unsynced))
        };
        let synced = self.flush_data();
        let journal = {
            let mut state = self.state();
            if let Err(error) = synced {
                state.unsynced += unsynced;
                return Err(error);
            }
            state.notes += u32::try_from(flushed.0.len()).unwrap_or(u32::MAX);
            let journal = self.journal(&mut state)?;
            let written = journal.write_all(flushed.lines("synced ").as_bytes());
            written.and_then(|()| journal.try_clone()).map_err(|e| self.journal_error(e))?
        };
        journal.sync_data().map_err(|e| self.journal_error(e))
    }

    /// The bytes alone, without a note of which they are: for content that is complete.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush_data(&self) -> Result<()> {
        self.data()?.sync_data().map_err(|e| ContentError::io("flush", &self.path(), e))
    }

    /// Reads the content back, compares it with what it must be, and hands it over, complete but without a name until
    /// [`crate::ContentStore::keep`]. Content that is not what it must be is thrown away, so that the next attempt begins anew.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong size (what is there stays) or digest.
    pub fn finish(self, expected: Expected) -> Result<Staged> {
        let (ranges, about) = {
            let state = self.state();
            (state.ranges.clone(), state.about.clone())
        };
        let (size_bytes, found) = (ranges.prefix(), ranges.bytes());
        let total = expected.size_bytes.or(about.total).unwrap_or(size_bytes);
        if size_bytes != total || found != total {
            return Err(ContentError::WrongSize { expected: total, found: size_bytes.min(found) });
        }
        let path = self.home.join("data");
        let data = self.data()?;
        data.set_len(size_bytes).map_err(|e| ContentError::io("truncate", &path, e))?;
        let digest = hash_file(&data, &path)?;
        if let Some(wanted) = expected.digest.or(about.expected).filter(|wanted| *wanted != digest) {
            self.restart()?;
            return Err(ContentError::WrongDigest { expected: wanted, found: digest });
        }
        let Self { home, claim, .. } = self;
        let claim = claim.into_inner().unwrap_or_else(PoisonError::into_inner);
        let claim = claim.ok_or(ContentError::NoIngest { reference: about.reference })?;
        Ok(Staged::of(Draft::resumable(path, home, claim), digest, size_bytes))
    }

    fn data(&self) -> Result<Arc<File>> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*data {
            return Ok(Arc::clone(open));
        }
        let path = self.path();
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let opened = Arc::new(opened.map_err(|e| ContentError::io("open", &path, e))?);
        *data = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_lives()?;
        self.data()?.write_all_at(bytes, offset).map_err(|e| ContentError::io("write", &self.home.join("data"), e))
    }

    /// The bytes of this range are in the file.
    fn written(&self, range: Range<u64>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        self.note_written(&mut state, range)?;
        Ok(state)
    }
}

/// The status of an ingest nobody has open; `None` for a directory that is none.
pub(crate) fn status(home: &Path) -> Result<Option<IngestStatus>> {
    let Some(about) = load_about(home)? else { return Ok(None) };
    let path = home.join("data");
    let data = match File::open(&path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ContentError::io("open", &path, source)),
    };
    let (ranges, updated) = trusted(home, &data)?;
    Ok(Some(status_of(&about, &ranges, updated)))
}

fn status_of(about: &About, ranges: &Ranges, updated: Timestamp) -> IngestStatus {
    IngestStatus {
        namespace: about.namespace.clone(),
        reference: about.reference.clone(),
        offset: ranges.prefix(),
        bytes: ranges.bytes(),
        total: about.total,
        expected: about.expected,
        started: Timestamp(about.started_ns),
        updated,
    }
}

fn begin(home: &Path) -> Result<()> {
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(ContentError::io("clear", home, error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(home).map_err(|e| ContentError::io("create", home, e))
}

fn store_about(home: &Path, about: &About) -> Result<()> {
    let (path, draft) = (home.join("about.json"), home.join("about-new"));
    let bytes = serde_json::to_vec(about).map_err(|e| ContentError::io("write", &path, io::Error::other(e)))?;
    fs::write(&draft, bytes).map_err(|e| ContentError::io("write", &draft, e))?;
    fs::rename(&draft, &path).map_err(|e| ContentError::io("name", &path, e))
}

/// `None` when there is none, or one that a crash of the host left half written.
fn load_about(home: &Path) -> Result<Option<About>> {
    let path = home.join("about.json");
    let Some(bytes) = read_small(&path, ABOUT_BYTES_MAX)? else { return Ok(None) };
    Ok(serde_json::from_slice::<About>(&bytes).ok().filter(|about| about.format == FORMAT))
}

/// The inode of data that has a second name: of a blob, when a crash came before this one was taken away.
pub(crate) fn shared_inode(home: &Path) -> Option<u64> {
    fs::symlink_metadata(home.join("data")).ok().filter(|found| found.nlink() > 1).map(|found| found.ino())
}

fn read_small(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ContentError::io("open", path, source)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(|e| ContentError::io("read", path, e))?;
    Ok(Some(bytes))
}

fn open_file(path: &Path, appends: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(!appends)
        .append(appends)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| ContentError::io("open", path, e))
}

fn hash_file(file: &File, path: &Path) -> Result<Digest> {
    let mut hasher = sha2::Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at).map_err(|e| ContentError::io("read", path, e))? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            n => {
                hasher.update(&piece[..n]);
                at += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests;
