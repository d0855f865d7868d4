//! What the registry has: blobs in a content store, and small files that say which repository has which of them.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_content::ContentStore;
use berth_types::Digest;
use parking_lot::Mutex;

use super::upload::Upload;
use crate::{RegistryError, Result};

/// Tags of one repository, and referrers of one manifest, that are listed.
const LISTED_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) content: ContentStore,
    repositories: PathBuf,
    pub(super) uploads: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Upload>>>>,
    _lock: File,
}

impl Shelf {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let repositories = root.join("repositories");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&repositories)
            .map_err(|e| RegistryError::io("create", &repositories, e))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|e| RegistryError::io("open", &path, e))?;
        lock.try_lock().map_err(|e| RegistryError::io("lock", &path, e.into()))?;
        let content = ContentStore::open(&root.join("content"))
            .map_err(|e| RegistryError::io("open", root, io::Error::other(berth_types::report(&e))))?;
        Ok(Self { content, repositories, uploads: Mutex::default(), _lock: lock })
    }

    fn link(&self, name: &str, kind: &str, entry: &str) -> PathBuf {
        self.repositories.join(name).join(kind).join(entry)
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        ["_blobs", "_manifests"].iter().any(|kind| self.repositories.join(name).join(kind).is_dir())
    }

    pub(super) fn has_blob(&self, name: &str, digest: &Digest) -> bool {
        self.link(name, "_blobs", &digest.hex()).is_file() && self.content.has(digest)
    }

    pub(super) fn add_blob(&self, name: &str, digest: &Digest) -> Result<()> {
        write(&self.link(name, "_blobs", &digest.hex()), b"")
    }

    /// Media type of a manifest of the repository.
    pub(super) fn media_type(&self, name: &str, digest: &Digest) -> Result<Option<String>> {
        read(&self.link(name, "_manifests", &digest.hex()))
    }

    pub(super) fn add_manifest(&self, name: &str, digest: &Digest, media_type: &str) -> Result<()> {
        write(&self.link(name, "_manifests", &digest.hex()), media_type.as_bytes())
    }

    pub(super) fn tag(&self, name: &str, tag: &str) -> Result<Option<Digest>> {
        Ok(read(&self.link(name, "_tags", tag))?.and_then(|text| text.trim().parse().ok()))
    }

    pub(super) fn set_tag(&self, name: &str, tag: &str, digest: &Digest) -> Result<()> {
        write(&self.link(name, "_tags", tag), digest.to_string().as_bytes())
    }

    /// Sorted.
    pub(super) fn tags(&self, name: &str) -> Result<Vec<String>> {
        list(&self.repositories.join(name).join("_tags"))
    }

    pub(super) fn add_referrer(
        &self,
        name: &str,
        subject: &Digest,
        referrer: &Digest,
        descriptor: &[u8],
    ) -> Result<()> {
        write(&self.link(name, "_referrers", &subject.hex()).join(referrer.hex()), descriptor)
    }

    /// Descriptors, as JSON.
    pub(super) fn referrers(&self, name: &str, subject: &Digest) -> Result<Vec<String>> {
        let directory = self.link(name, "_referrers", &subject.hex());
        let names = list(&directory)?;
        names.iter().filter_map(|entry| read(&directory.join(entry)).transpose()).collect()
    }
}

fn list(directory: &Path) -> Result<Vec<String>> {
    let failed = |e| RegistryError::io("list", directory, e);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries.take(LISTED_MAX) {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(RegistryError::io("read", path, e)),
    }
}

/// Beside it and then over it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| RegistryError::io("write", path, e);
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = directory.join(format!(".{name}.new"));
    fs::write(&draft, bytes).and_then(|()| File::open(&draft)?.sync_all()).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}
