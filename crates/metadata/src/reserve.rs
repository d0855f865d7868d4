//! Space kept back so that removal works on a full disk: a file beside the database that is given up when the disk has no room for a
//! deletion, and made again as soon as there is room.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use crate::schema::FILE_MODE;

/// A transaction of some thousand deletions fits, and so does what the database rewrites when it is opened after a failure.
const RESERVE_BYTES: u64 = 2 << 20;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    is_there: AtomicBool,
}

impl Reserve {
    pub(crate) fn beside(database: &Path) -> Self {
        Self { path: database.with_extension("reserve"), is_there: AtomicBool::new(false) }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// Makes it when it is not there. No room for it is no error: the writer tries again every second.
    pub(crate) fn fill(&self) {
        if self.is_there() {
            return;
        }
        let is_made = self.allocate().is_ok();
        if !is_made {
            self.release();
        }
        self.is_there.store(is_made, Ordering::Relaxed);
    }

    fn allocate(&self) -> io::Result<()> {
        let file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?)
    }

    /// Gives the space up; false when it was given up already.
    pub(crate) fn release(&self) -> bool {
        self.is_there.store(false, Ordering::Relaxed);
        fs::remove_file(&self.path).is_ok()
    }
}
