//! Layers that arrive from a registry, as the image store reads them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use berth_image::LayerSource;
use berth_registry::{Fetch, Partial};
use berth_types::{Digest, report};
use parking_lot::Mutex;

use crate::error::{EngineError, Result};

/// The fetches of one pull. Giving it up ends those that no other pull waits for.
#[derive(Debug, Clone)]
pub(crate) struct FetchSource {
    fetches: Arc<Mutex<Vec<Arc<Fetch>>>>,
    partials: Arc<HashMap<Digest, Arc<Partial>>>,
}

impl FetchSource {
    pub(crate) fn new(fetches: Vec<Arc<Fetch>>) -> Self {
        let partials = fetches.iter().map(|f| (f.partial().digest(), Arc::clone(f.partial()))).collect();
        Self { fetches: Arc::new(Mutex::new(fetches)), partials: Arc::new(partials) }
    }

    pub(crate) fn give_up(&self) {
        self.fetches.lock().clear();
    }

    pub(crate) fn partials(&self) -> impl Iterator<Item = &Arc<Partial>> {
        self.partials.values()
    }

    /// Why a fetch failed, which says more than what the reader of it says.
    pub(crate) fn failure(&self) -> Option<EngineError> {
        self.partials().find_map(|partial| Some(EngineError::from(partial.failure()?)))
    }

    fn get(&self, blob: &Digest) -> io::Result<&Arc<Partial>> {
        self.partials.get(blob).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl LayerSource for FetchSource {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.get(blob)?.reader()))
    }

    fn whole(&self, blob: &Digest) -> io::Result<PathBuf> {
        let partial = self.get(blob)?;
        partial.wait_verified().map_err(|error| io::Error::other(report(&error)))?;
        Ok(partial.path().to_owned())
    }
}

/// Bytes that are free for us on the file system of a directory.
pub(crate) fn free_bytes(directory: &std::path::Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory).map_err(|e| EngineError::io("look at", directory, &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
