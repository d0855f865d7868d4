//! Layers that arrive from a registry, as the image store reads them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_image::LayerSource;
use berth_registry::{Fetch, Partial};
use berth_types::{ByteCount, Digest, ErrorClass, report};
use parking_lot::Mutex;

use crate::error::{EngineError, Result};

/// The fetches of one pull. Giving it up ends those that no other pull waits for.
#[derive(Debug, Clone)]
pub(crate) struct FetchSource {
    fetches: Arc<Mutex<Vec<Arc<Fetch>>>>,
    partials: Arc<Mutex<HashMap<Digest, Arc<Partial>>>>,
}

impl FetchSource {
    pub(crate) fn new(fetches: Vec<Arc<Fetch>>) -> Self {
        let partials = fetches.iter().map(|f| (f.partial().digest(), Arc::clone(f.partial()))).collect();
        Self { fetches: Arc::new(Mutex::new(fetches)), partials: Arc::new(Mutex::new(partials)) }
    }

    pub(crate) fn give_up(&self) {
        self.fetches.lock().clear();
    }

    /// The pull has all it needs of a blob.
    pub(crate) fn let_go(&self, blob: &Digest) {
        self.fetches.lock().retain(|fetch| fetch.partial().digest() != *blob);
        self.partials.lock().remove(blob);
    }

    pub(crate) fn partials(&self) -> Vec<Arc<Partial>> {
        self.partials.lock().values().map(Arc::clone).collect()
    }

    /// Why a fetch failed, which says more than what the reader of it says.
    pub(crate) fn failure(&self) -> Option<EngineError> {
        self.partials().iter().find_map(|partial| Some(EngineError::from(partial.failure()?)))
    }

    fn get(&self, blob: &Digest) -> io::Result<Arc<Partial>> {
        self.partials.lock().get(blob).map(Arc::clone).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl LayerSource for FetchSource {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.get(blob)?.reader()))
    }

    fn edition(&self, blob: &Digest) -> u64 {
        self.get(blob).map_or(0, |partial| partial.edition())
    }

    fn was_wrong(&self, blob: &Digest, edition: u64, is_wanted: &dyn Fn() -> bool) -> bool {
        self.get(blob).is_ok_and(|partial| partial.was_wrong(edition, is_wanted))
    }

    fn whole(&self, blob: &Digest) -> io::Result<PathBuf> {
        let partial = self.get(blob)?;
        partial.wait_verified().map_err(|error| io::Error::other(report(&error)))?;
        Ok(partial.path().to_owned())
    }
}

/// Refuses what cannot fit: bytes that have to come, and those that come of them. `which`: a word on the latter.
///
/// # Errors
/// `ResourceExhausted`, with what is needed and what is free.
pub(crate) fn require_space(directory: &Path, what: &str, missing: u64, made: u64, which: &str) -> Result<()> {
    let free = free_bytes(directory)?;
    if missing.saturating_add(made) <= free {
        return Ok(());
    }
    let (missing, free, directory) = (ByteCount(missing), ByteCount(free), directory.display());
    let message = format!("no space for {what}: {missing} to fetch{which}, {free} free in {directory}");
    Err(EngineError::new(ErrorClass::ResourceExhausted, message).with_hint("berth system prune frees space"))
}

/// Bytes that are free for us on the file system of a directory.
pub(crate) fn free_bytes(directory: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory).map_err(|e| EngineError::io("look at", directory, &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
