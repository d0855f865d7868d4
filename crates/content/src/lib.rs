//! The content store: blobs by digest, verified while they are written.
//!
//! ```text
//! <root>/blobs/sha256/<hex>   complete, verified, read-only
//! <root>/damaged/<hex>        moved away by fsck: its bytes were no longer those that were written
//! <root>/ingest/<number>      being written by a process that lives; swept at open
//! <root>/ingest/<hash>/       being written under a reference, also what comes from a registry; survives (see `resumable`)
//! <root>/trash/<number>       removed, its space not yet given back; swept at open
//! ```
//!
//! It knows nothing of images or of who refers to a blob. Invariants: a name below `blobs` means that the bytes had this digest when they
//! were written and were on disk before the name was; a failed or dropped ingest leaves nothing.

mod error;
mod ingest;
mod ledger;
mod resumable;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use berth_types::{Digest, Timestamp};
pub use error::ContentError;
pub use ingest::{Copying, Expected, Ingest, Staged};
use ledger::Ledger;
pub use ledger::Totals;
use resumable::Claim;
pub use resumable::{IngestStatus, ResumableIngest, SYNC_BYTES};
use rustix::fs::{FileType, Mode, OFlags};
use sha2::Digest as _;

type Result<T> = std::result::Result<T, ContentError>;

/// Reads and writes go in pieces of this size.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Blobs of this size are not deleted while somebody waits.
const LARGE_BYTES: u64 = 1 << 20;

/// The blobs of one data root. Shared by threads; one process owns the directory (the metadata file's lock sees to that).
#[derive(Debug)]
pub struct ContentStore {
    blobs: PathBuf,
    ingests: PathBuf,
    next_ingest: AtomicU64,
    trash: PathBuf,
    next_trash: AtomicU64,
    /// Since it was emptied last, something was put there; most who empty it find nothing.
    has_trash: AtomicBool,
    /// Resumable ingests that somebody has open.
    claims: Arc<Mutex<HashSet<String>>>,
    ledger: Ledger,
}

impl ContentStore {
    /// Opens or makes the store and removes what earlier processes left half written, except ingests with a reference.
    ///
    /// # Errors
    /// When the directories cannot be made or read.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self {
            blobs: root.join("blobs/sha256"),
            ingests: root.join("ingest"),
            next_ingest: AtomicU64::new(0),
            trash: root.join("trash"),
            next_trash: AtomicU64::new(0),
            // What an earlier process left.
            has_trash: AtomicBool::new(true),
            claims: Arc::default(),
            ledger: Ledger::default(),
        };
        for directory in [&store.blobs, &store.ingests, &store.trash] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|e| ContentError::io("create", directory, e))?;
        }
        // Where blobs on their way from a registry were before they became ingests like others; they are fetched again.
        match fs::remove_dir_all(root.join("partial")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(ContentError::io("sweep", root, e)),
            _ => {}
        }
        for entry in read_dir(&store.ingests)? {
            let swept = match entry.is_dir() {
                true if resumable::status(&entry)?.is_some() => Ok(()),
                true => fs::remove_dir_all(&entry),
                false => fs::remove_file(&entry),
            };
            swept.map_err(|e| ContentError::io("sweep", &entry, e))?;
        }
        store.empty_trash()?;
        for digest in store.list()? {
            // Not a file: no blob, and told by whoever asks for it.
            if let Ok(found) = fs::symlink_metadata(store.path(&digest)) {
                store.ledger.add(digest, &found);
            }
        }
        Ok(store)
    }

    /// Removes ingests whose data is a blob by now: a crash came between. To be called when blobs of nobody are gone, so that what was fetched for
    /// an image that never came to be is fetched no second time.
    ///
    /// # Errors
    /// When the directories cannot be read or removed.
    pub fn sweep_taken_over(&self) -> Result<()> {
        for home in read_dir(&self.ingests)? {
            if self.is_taken_over(&home)? {
                fs::remove_dir_all(&home).map_err(|e| ContentError::io("sweep", &home, e))?;
            }
        }
        Ok(())
    }

    /// Whether the data of an ingest is a blob. A second name alone does not say so: a blob of nobody that waits in the trash was one, and who comes
    /// back for it need not fetch it again.
    fn is_taken_over(&self, home: &Path) -> Result<bool> {
        let Some(inode) = resumable::shared_inode(home) else { return Ok(false) };
        let is_it = |digest: &Digest| fs::symlink_metadata(self.path(digest)).is_ok_and(|found| found.ino() == inode);
        Ok(self.list()?.iter().any(is_it))
    }

    /// Begins the ingest of a reference, or goes on with it where an earlier opener (also of an earlier process) stopped.
    ///
    /// # Errors
    /// `Unavailable` while somebody else has it open.
    pub fn resume(&self, namespace: &str, reference: &str, expected: Expected) -> Result<ResumableIngest> {
        let name = resumable::home_name(namespace, reference);
        let claim = Claim::take(&self.claims, &name, reference)?;
        let home = self.ingests.join(name);
        let is_taken_over = self.is_taken_over(&home)?;
        ResumableIngest::open(&home, namespace, reference, expected, claim, is_taken_over)
    }

    /// How far an ingest is. One that is open tells more exactly itself ([`ResumableIngest::status`]).
    ///
    /// # Errors
    /// `NotFound` when there is none of that reference.
    pub fn ingest_status(&self, namespace: &str, reference: &str) -> Result<IngestStatus> {
        let home = self.ingests.join(resumable::home_name(namespace, reference));
        resumable::status(&home)?.ok_or_else(|| ContentError::NoIngest { reference: reference.to_owned() })
    }

    /// All ingests with a reference, of one namespace or of all, by reference.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ingest_statuses(&self, namespace: Option<&str>) -> Result<Vec<IngestStatus>> {
        let mut found = Vec::new();
        for home in read_dir(&self.ingests)?.into_iter().filter(|path| path.is_dir()) {
            found.extend(resumable::status(&home)?);
        }
        found.retain(|status| namespace.is_none_or(|wanted| wanted == status.namespace));
        found.sort_by(|a, b| (&a.namespace, &a.reference).cmp(&(&b.namespace, &b.reference)));
        Ok(found)
    }

    /// Throws away what an ingest has so far.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Unavailable` while somebody has it open.
    pub fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        let name = resumable::home_name(namespace, reference);
        let _claim = Claim::take(&self.claims, &name, reference)?;
        let home = self.ingests.join(name);
        match fs::remove_dir_all(&home) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(ContentError::NoIngest { reference: reference.to_owned() })
            }
            Err(e) => Err(ContentError::io("remove", &home, e)),
        }
    }

    /// Starts writing a blob whose digest may not be known yet.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(&self) -> Result<Ingest> {
        let number = self.next_ingest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ingest::create(self.ingests.join(number.to_string()))
    }

    /// Writes a small blob at once; not durable before [`Self::keep`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn stage(&self, bytes: &[u8]) -> Result<Staged> {
        let mut ingest = self.begin()?;
        ingest.append(bytes)?;
        ingest.finish(Expected::default())
    }

    /// Takes over a complete file of the same file system whose digest its maker has found right; the file keeps its own name, too.
    ///
    /// # Errors
    /// `InvalidArgument` when it has another size; when it cannot be linked.
    pub fn adopt(&self, path: &Path, expected: Expected) -> Result<Staged> {
        let number = self.next_ingest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Staged::link(path, self.ingests.join(number.to_string()), expected)
    }

    /// Flushes the blobs, gives them their names and flushes the directory, once for all of them. Blobs that are there already stay as they are.
    ///
    /// # Errors
    /// When a flush or rename fails; then some of the blobs may be in the store, unreferenced.
    pub fn keep(&self, staged: impl IntoIterator<Item = Staged>) -> Result<()> {
        let (known, staged): (Vec<Staged>, Vec<Staged>) = staged.into_iter().partition(|blob| self.is_whole(blob));
        known.into_iter().for_each(Staged::forget);
        for blob in &staged {
            blob.flush()?;
        }
        let is_new = !staged.is_empty();
        for blob in staged {
            let digest = blob.digest();
            let path = self.path(&digest);
            blob.name(&path)?;
            let found = fs::symlink_metadata(&path).map_err(|e| ContentError::of_blob("stat", &digest, &path, e))?;
            self.ledger.add(digest, &found);
        }
        if is_new {
            let directory = File::open(&self.blobs).map_err(|e| ContentError::io("open", &self.blobs, e))?;
            directory.sync_all().map_err(|e| ContentError::io("flush", &self.blobs, e))?;
        }
        Ok(())
    }

    /// Whether the store has these bytes; a blob cut short by a fault of the disk is replaced.
    fn is_whole(&self, staged: &Staged) -> bool {
        self.size(&staged.digest()).is_ok_and(|size| size == staged.size_bytes())
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// # Errors
    /// `NotFound` when there is no such blob.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        let path = self.path(digest);
        fs::symlink_metadata(&path)
            .map(|found| found.len())
            .map_err(|e| ContentError::of_blob("stat", digest, &path, e))
    }

    /// Since when it is here.
    ///
    /// # Errors
    /// `NotFound` when there is no such blob.
    pub fn created(&self, digest: &Digest) -> Result<Timestamp> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.path(digest);
        let found = fs::symlink_metadata(&path).map_err(|e| ContentError::of_blob("stat", digest, &path, e))?;
        // Nobody writes to it after it has its name.
        Ok(Timestamp(found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())))
    }

    /// Opens a blob for reading, links not followed.
    ///
    /// # Errors
    /// `NotFound` when there is no such blob.
    pub fn reader(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |e: io::Error| ContentError::of_blob("open", digest, &path, e);
        let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        Ok(file.into())
    }

    /// Bytes of a blob from an offset, as many as are there and fit; none at its end.
    ///
    /// # Errors
    /// `NotFound` when there is no such blob; `InvalidArgument` for an offset beyond its end.
    pub fn read_at(&self, digest: &Digest, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.reader(digest)?;
        let size_bytes = self.size(digest)?;
        if offset > size_bytes {
            return Err(ContentError::Range { digest: *digest, offset, length: buffer.len() as u64, size_bytes });
        }
        let mut len = 0;
        while len < buffer.len() {
            match file.read_at(&mut buffer[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ContentError::of_blob("read", digest, &self.path(digest), e)),
            }
        }
        Ok(len)
    }

    /// A whole small blob, at most `bytes_max`, with its digest checked again.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when it is larger; `DataLoss` when the bytes are no longer those that were written.
    pub fn read(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let file = self.reader(digest)?;
        let mut bytes = Vec::new();
        let failed = |e| ContentError::of_blob("read", digest, &self.path(digest), e);
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > bytes_max {
            return Err(ContentError::TooLarge { digest: *digest, bytes_max });
        }
        let found = digest_of(&bytes);
        if found != *digest {
            return Err(ContentError::Damaged { digest: *digest, found });
        }
        Ok(bytes)
    }

    /// Reads the whole blob and checks that it still has its digest.
    ///
    /// # Errors
    /// `NotFound`, or `DataLoss` when the bytes are no longer those that were written.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let mut file = self.reader(digest)?;
        let mut hasher = sha2::Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece).map_err(|e| ContentError::of_blob("read", digest, &self.path(digest), e))? {
                0 => break,
                n => hasher.update(&piece[..n]),
            }
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found == *digest { Ok(()) } else { Err(ContentError::Damaged { digest: *digest, found }) }
    }

    /// Moves a damaged blob out of the way (`<root>/damaged/<hex>`), for whoever wants to look at it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn quarantine(&self, digest: &Digest) -> Result<()> {
        let directory = self.blobs.join("../../damaged");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|e| ContentError::io("create", &directory, e))?;
        let path = self.path(digest);
        self.ledger.remove(digest);
        fs::rename(&path, directory.join(digest.hex())).map_err(|e| ContentError::io("move away", &path, e))
    }

    /// Removes a blob; its bytes stay readable through descriptors that are open. Not there: fine. Returns the bytes that are freed: at once, or
    /// those of a large one (the kernel takes milliseconds for each) by the next [`Self::empty_trash`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, digest: &Digest) -> Result<u64> {
        let path = self.path(digest);
        let bytes = match self.size(digest) {
            Ok(bytes) => bytes,
            Err(ContentError::NotFound { .. }) => {
                self.ledger.remove(digest);
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let removed = match bytes {
            0..LARGE_BYTES => fs::remove_file(&path),
            _ => {
                let number = self.next_trash.fetch_add(1, Ordering::Relaxed);
                let moved = fs::rename(&path, self.trash.join(number.to_string()));
                self.has_trash.store(true, Ordering::Release);
                moved
            }
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ContentError::io("remove", &path, e)),
            _ => {
                self.ledger.remove(digest);
                Ok(bytes)
            }
        }
    }

    /// Gives back the space of what was removed. For a thread that has the time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn empty_trash(&self) -> Result<()> {
        if !self.has_trash.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let delete = |file: &PathBuf| match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ContentError::io("delete", file, e)),
            _ => Ok(()),
        };
        let emptied = read_dir(&self.trash).and_then(|files| files.iter().try_for_each(delete));
        self.has_trash.fetch_or(emptied.is_err(), Ordering::Release);
        emptied
    }

    /// Digests of all blobs, sorted. Files that are no blobs are not listed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let names = read_dir(&self.blobs)?;
        let mut digests: Vec<Digest> = names
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .filter_map(|name| Digest::from_hex(name).ok())
            .collect();
        digests.sort_unstable();
        Ok(digests)
    }

    /// How many blobs there are and what they take; no file is looked at.
    pub fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    /// What is being written, with and without a reference, and the damaged blobs that fsck moved away: a look at each file.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn unfinished_and_damaged(&self) -> Result<(Totals, Totals)> {
        let mut unfinished = Totals::default();
        for path in read_dir(&self.ingests)? {
            match path.is_dir() {
                // Thrown away meanwhile: nothing of it counts.
                true => read_dir(&path).unwrap_or_default().iter().for_each(|file| unfinished.add_file(file)),
                false => unfinished.add_file(&path),
            }
        }
        let mut damaged = Totals::default();
        read_dir(&self.blobs.join("../../damaged")).unwrap_or_default().iter().for_each(|file| damaged.add_file(file));
        Ok((unfinished, damaged))
    }

    /// Bytes of each ingest without a reference that is under way.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ingests(&self) -> Result<Vec<u64>> {
        let paths = read_dir(&self.ingests)?;
        let found = paths.iter().filter_map(|path| fs::symlink_metadata(path).ok());
        Ok(found.filter(fs::Metadata::is_file).map(|found| found.len()).collect())
    }
}

/// The digest of bytes in memory.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn read_dir(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| ContentError::io("list", directory, e);
    fs::read_dir(directory).map_err(failed)?.map(|entry| entry.map(|e| e.path()).map_err(failed)).collect()
}

#[cfg(test)]
mod tests;
