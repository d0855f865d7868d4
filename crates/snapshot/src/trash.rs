//! What is to be deleted: renamed into one directory at once, deleted later at leisure by whoever has the time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use berth_rootfs::{Overflow, remove_tree};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::{Driver, Result, SnapshotError, names};

/// A directory of things to delete, on the file system they are on.
#[derive(Debug)]
pub struct Trash {
    path: PathBuf,
    driver: Arc<dyn Driver>,
    fd: OwnedFd,
    next: AtomicU64,
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Signal {
    has_work: bool,
    is_stopped: bool,
}

impl Trash {
    pub(crate) fn open(path: PathBuf, driver: Arc<dyn Driver>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| SnapshotError::io("open", &path, errno.into()))?;
        // What an earlier process left is work.
        let signal = Mutex::new(Signal { has_work: true, is_stopped: false });
        Ok(Self { path, driver, fd, next: AtomicU64::new(0), signal, changed: Condvar::new() })
    }

    /// Renames a path of the same file system here. A path that does not exist is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn put(&self, path: &Path) -> Result<()> {
        loop {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            match rustix::fs::renameat_with(CWD, path, &self.fd, name, RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::NOENT) => return Ok(()),
                // Left by an earlier process.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(SnapshotError::io("move to the trash", path, errno.into())),
            }
        }
        self.wake();
        Ok(())
    }

    /// Deletes up to `count` of the things here, each with all below it. Returns whether there is more. What cannot go before something else
    /// is passed over.
    ///
    /// # Errors
    /// The first failure, when nothing at all could be deleted.
    pub fn empty_some(&self, count: usize) -> Result<bool> {
        let mut first_error = None;
        let mut deleted = 0;
        for name in names(&self.path)? {
            if deleted == count {
                break;
            }
            match self.delete(&name) {
                Ok(()) => deleted += 1,
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        match first_error {
            Some(error) if deleted == 0 => Err(error),
            _ => Ok(!names(&self.path)?.is_empty()),
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.driver.destroy(&self.path.join(name))?;
        remove_tree(self.fd.as_fd(), name.as_ref(), Some(Overflow(self.fd.as_fd())))
            .map_err(|source| SnapshotError::Tree { path: self.path.clone(), source })
    }

    /// Deletes everything here, unless stopped.
    ///
    /// # Errors
    /// As [`Self::empty_some`].
    pub fn empty(&self) -> Result<()> {
        const AT_ONCE: usize = 8;
        self.driver.let_go();
        while !self.signal().is_stopped && self.empty_some(AT_ONCE)? {}
        Ok(())
    }

    /// Blocks until something was put here since the last call; false after [`Self::stop`].
    pub fn wait(&self) -> bool {
        let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signal = self
            .changed
            .wait_while(signal, |signal| !signal.has_work && !signal.is_stopped)
            .unwrap_or_else(PoisonError::into_inner);
        signal.has_work = false;
        !signal.is_stopped
    }

    /// Ends [`Self::wait`] and [`Self::empty`] for good. What is left is deleted after the next opening.
    pub fn stop(&self) {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).is_stopped = true;
        self.changed.notify_all();
    }

    /// Ends the next [`Self::wait`]: there is work.
    pub fn wake(&self) {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).has_work = true;
        self.changed.notify_one();
    }

    fn signal(&self) -> Signal {
        *self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
