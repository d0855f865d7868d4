//! A blob on its way into the store: first an [`Ingest`] that is appended to and hashed, then [`Staged`], complete and verified but not yet
//! named. Dropping either removes the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_types::Digest;
use sha2::Digest as _;

use crate::resumable::Claim;
use crate::{ContentError, PIECE_BYTES, Result};

/// What the content must turn out to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    pub digest: Option<Digest>,
    pub size_bytes: Option<u64>,
}

/// The file, removed with the value unless it was given a name or can be resumed. It is not held open: an archive may have tens of thousands.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    is_named: bool,
    /// Of a resumable ingest: its directory, which goes when the file has its name.
    resumable: Option<(PathBuf, Claim)>,
}

impl Draft {
    fn new(path: PathBuf) -> Self {
        Self { path, is_named: false, resumable: None }
    }

    pub(crate) fn resumable(path: PathBuf, home: PathBuf, claim: Claim) -> Self {
        Self { path, is_named: false, resumable: Some((home, claim)) }
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| ContentError::io("open", &self.path, e))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is swept when the store is opened next.
        match &self.resumable {
            Some((home, _)) if self.is_named => drop(fs::remove_dir_all(home)),
            None if !self.is_named => drop(fs::remove_file(&self.path)),
            _ => {}
        }
    }
}

/// Content being written.
#[derive(Debug)]
pub struct Ingest {
    file: File,
    draft: Draft,
    hasher: sha2::Sha256,
    size_bytes: u64,
}

impl Ingest {
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| ContentError::io("create", &path, e))?;
        Ok(Self { file, draft: Draft::new(path), hasher: sha2::Sha256::new(), size_bytes: 0 })
    }

    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| ContentError::io("write", &self.draft.path, e))?;
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Appends everything the reader has. `piece` is the caller's buffer, so that many ingests share one; empty: one is made.
    ///
    /// # Errors
    /// `Read` when the source fails, `Write` when the disk does.
    pub fn append_from(&mut self, source: &mut dyn Read, piece: &mut Vec<u8>) -> std::result::Result<u64, Copying> {
        if piece.is_empty() {
            piece.resize(PIECE_BYTES, 0);
        }
        let before = self.size_bytes;
        loop {
            match source.read(piece) {
                Ok(0) => return Ok(self.size_bytes - before),
                Ok(n) => self.append(&piece[..n]).map_err(Copying::Write)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Copying::Read(e)),
            }
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// # Errors
    /// `InvalidArgument` when the content is not what it must be; nothing is left of it then.
    pub fn finish(self, expected: Expected) -> Result<Staged> {
        if let Some(expected) = expected.size_bytes.filter(|size| *size != self.size_bytes) {
            return Err(ContentError::WrongSize { expected, found: self.size_bytes });
        }
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        if let Some(expected) = expected.digest.filter(|wanted| *wanted != digest) {
            return Err(ContentError::WrongDigest { expected, found: digest });
        }
        Ok(Staged { draft: self.draft, digest, size_bytes: self.size_bytes })
    }
}

impl io::Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(ContentError::Io { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which side of [`Ingest::append_from`] failed.
#[derive(Debug)]
pub enum Copying {
    Read(io::Error),
    Write(ContentError),
}

/// Complete content without a name yet. Its bytes can be read; it becomes a blob by [`crate::ContentStore::keep`].
#[derive(Debug)]
pub struct Staged {
    draft: Draft,
    digest: Digest,
    size_bytes: u64,
}

impl Staged {
    pub(crate) fn of(draft: Draft, digest: Digest, size_bytes: u64) -> Self {
        Self { draft, digest, size_bytes }
    }

    /// `expected` must have a digest: nothing is hashed here.
    pub(crate) fn link(from: &Path, path: PathBuf, expected: Expected) -> Result<Self> {
        fs::hard_link(from, &path).map_err(|e| ContentError::io("link", from, e))?;
        let draft = Draft::new(path);
        let size_bytes = draft.open()?.metadata().map_err(|e| ContentError::io("stat", from, e))?.len();
        if let Some(expected) = expected.size_bytes.filter(|size| *size != size_bytes) {
            return Err(ContentError::WrongSize { expected, found: size_bytes });
        }
        let digest =
            expected.digest.ok_or_else(|| ContentError::io("adopt", from, io::ErrorKind::InvalidInput.into()))?;
        Ok(Self { draft, digest, size_bytes })
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A reader of its own from the first byte.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn reader(&self) -> Result<File> {
        self.draft.open()
    }

    /// The whole content, when it is at most `bytes_max` long.
    ///
    /// # Errors
    /// `InvalidArgument` when it is longer.
    pub fn read(&self, bytes_max: u64) -> Result<Vec<u8>> {
        if self.size_bytes > bytes_max {
            return Err(ContentError::TooLarge { digest: self.digest, bytes_max });
        }
        let mut bytes = Vec::new();
        let failed = |e| ContentError::io("read", &self.draft.path, e);
        self.draft.open()?.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Writes the bytes through to the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<()> {
        self.draft.open()?.sync_data().map_err(|e| ContentError::io("flush", &self.draft.path, e))
    }

    pub(crate) fn name(mut self, path: &Path) -> Result<()> {
        fs::set_permissions(&self.draft.path, fs::Permissions::from_mode(0o400))
            .map_err(|e| ContentError::io("protect", &self.draft.path, e))?;
        fs::rename(&self.draft.path, path).map_err(|e| ContentError::io("name", path, e))?;
        self.draft.is_named = true;
        Ok(())
    }

    /// Lets a resumable ingest go whose content the store has already.
    pub(crate) fn forget(mut self) {
        self.draft.is_named = self.draft.resumable.is_some();
    }
}
