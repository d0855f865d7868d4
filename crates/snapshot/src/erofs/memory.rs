//! What images that are being written keep in memory, together: names and attributes of every file wait for the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of the images of one import: those of some 120,000 files.
const BYTES_MAX: usize = 32 << 20;

/// Shared by the images that are written at the same time for one purpose.
#[derive(Debug, Clone, Default)]
pub struct ImageMemory {
    used: Arc<AtomicUsize>,
}

/// An image has more files or attributes than fit into the memory for it. Its layer can be kept as a directory instead.
#[derive(Debug, thiserror::Error)]
#[error("its names and attributes take more than {} MiB", BYTES_MAX >> 20)]
pub struct ImageMemoryError;

/// The part of one image; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: ImageMemory,
    bytes: usize,
}

impl Share {
    pub(super) fn of(memory: &ImageMemory) -> Self {
        Self { memory: memory.clone(), bytes: 0 }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.memory.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.memory.used.load(Ordering::Relaxed) <= BYTES_MAX {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::OutOfMemory, ImageMemoryError))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whether an image could not be written for want of memory.
pub fn is_out_of_memory(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<ImageMemoryError>())
}
