//! Directories held open for the entries that go into them: most entries follow one for the same directory, so few system calls are needed.
//! A directory's time is set when it is let go, after everything was made in it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_rootfs::{RootDir, RootError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{ExtractError, Extracted, is_whiteout, set_opaque, split};
use crate::tar_stream::{Entry, Mtime};

/// Directories held open at once.
const OPEN_MAX: usize = 32;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Debug)]
pub(super) struct Parents<'r> {
    root: &'r RootDir,
    base: Vec<u8>,
    lowers: &'r [RootDir],
    is_layer: bool,
    open: Vec<OpenDirectory>,
    /// Hashes of directories whose time the archive gives; in a layer it gives all of them.
    timed: HashSet<u64>,
    clock: u64,
}

#[derive(Debug)]
struct OpenDirectory {
    path: Vec<u8>,
    fd: OwnedFd,
    /// To be set when it is let go.
    mtime: Option<Timespec>,
    used: u64,
}

impl<'r> Parents<'r> {
    pub(super) fn new(root: &'r RootDir, base: Vec<u8>, lowers: &'r [RootDir], is_layer: bool) -> Self {
        Self { root, base, lowers, is_layer, open: Vec::new(), timed: HashSet::new(), clock: 0 }
    }

    /// The directory of a clean path, made (with missing ones above it) if it does not exist.
    pub(super) fn get(&mut self, path: &[u8], entry: &Entry) -> Extracted<BorrowedFd<'_>> {
        if let Some(at) = self.find(path) {
            return Ok(self.touch(at));
        }
        let fd = match (self.open_existing(path), split(path)) {
            (Ok(fd), _) => fd,
            (Err(RootError { source: Errno::NOENT | Errno::NOTDIR, .. }), Some((parent, name))) => {
                self.make_missing(path, parent, name, entry)?
            }
            (Err(error), _) => return Err(error.into()),
        };
        self.keep(path, fd)
    }

    pub(super) fn get_existing(&mut self, path: &[u8]) -> Extracted<BorrowedFd<'_>> {
        match self.find(path) {
            Some(at) => Ok(self.touch(at)),
            None => {
                let fd = self.open_existing(path)?;
                self.keep(path, fd)
            }
        }
    }

    /// Opens a directory that was just made or found in its parent, not following a link.
    pub(super) fn enter(
        &mut self,
        parent: &[u8],
        name: &OsStr,
        path: &[u8],
        entry: &Entry,
    ) -> Extracted<BorrowedFd<'_>> {
        if let Some(at) = self.find(path) {
            return Ok(self.touch(at));
        }
        let directory = self.get(parent, entry)?;
        let fd = rustix::fs::openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(ExtractError::kernel("open the directory"))?;
        self.keep(path, fd)
    }

    /// The time the directory shall have in the end.
    pub(super) fn set_mtime(&mut self, path: &[u8], mtime: Mtime) {
        if !self.is_layer {
            self.timed.insert(hash(path));
        }
        if let Some(at) = self.find(path) {
            self.open[at].mtime = Some(timespec(mtime));
        }
    }

    /// Lets all directories go.
    pub(super) fn close_all(&mut self) {
        for directory in self.open.drain(..) {
            directory.close();
        }
    }

    /// Sets an attribute on a directory of the archive, if it still is one. For after everything else.
    pub(super) fn set_late(&self, path: &[u8], name: &str, value: &[u8]) -> Result<(), Errno> {
        match self.root.open(&self.full(path), DIRECTORY, Mode::empty()) {
            Ok(directory) => rustix::fs::fsetxattr(&directory, name, value, rustix::fs::XattrFlags::empty()),
            Err(RootError { source: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(()),
            Err(RootError { source, .. }) => Err(source),
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.open.iter().rposition(|directory| directory.path == path)
    }

    fn touch(&mut self, at: usize) -> BorrowedFd<'_> {
        self.clock += 1;
        self.open[at].used = self.clock;
        self.open[at].fd.as_fd()
    }

    /// In a layer the time a directory has when it is opened is what the archive said.
    fn keep(&mut self, path: &[u8], fd: OwnedFd) -> Extracted<BorrowedFd<'_>> {
        let is_timed = self.is_layer || self.timed.contains(&hash(path));
        let mtime = if is_timed {
            let stat = rustix::fs::fstat(&fd).map_err(ExtractError::kernel("stat the directory"))?;
            Some(Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() })
        } else {
            None
        };
        if self.open.len() == OPEN_MAX {
            let oldest = (0..OPEN_MAX).min_by_key(|at| self.open[*at].used).unwrap_or(0);
            self.open.swap_remove(oldest).close();
        }
        self.open.push(OpenDirectory { path: path.to_owned(), fd, mtime, used: 0 });
        Ok(self.touch(self.open.len() - 1))
    }

    fn full(&self, path: &[u8]) -> std::path::PathBuf {
        Path::new(OsStr::from_bytes(&self.base)).join(OsStr::from_bytes(path))
    }

    fn open_existing(&self, path: &[u8]) -> Result<OwnedFd, RootError> {
        self.root.open(&self.full(path), DIRECTORY, Mode::empty())
    }

    /// Makes a directory that the archive does not mention. In a layer it may be marked as deleted below.
    fn make_missing(&mut self, path: &[u8], parent: &[u8], name: &[u8], entry: &Entry) -> Extracted<OwnedFd> {
        let is_layer = self.is_layer;
        let parent = self.get(parent, entry)?;
        let name = OsStr::from_bytes(name);
        let mut hides_lower = false;
        match super::stat(parent, name) {
            Ok(stat) if is_layer && is_whiteout(&stat) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(ExtractError::kernel("replace the whiteout"))?;
                hides_lower = true;
            }
            Ok(_) => return Err(ExtractError::Refused("what should be its directory is something else")),
            Err(_) => {}
        }
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
            .map_err(ExtractError::kernel("create its directory"))?;
        let fd = rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(ExtractError::kernel("open its directory"))?;
        let (mode, mtime) = if hides_lower {
            set_opaque(fd.as_fd())?;
            (0o755, None)
        } else {
            self.like_lower(&fd, path)?
        };
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
            .map_err(ExtractError::kernel("set the mode of its directory"))?;
        if self.is_layer {
            let time = mtime.unwrap_or(timespec(entry.mtime));
            rustix::fs::futimens(&fd, &Timestamps { last_access: time, last_modification: time }).ok();
        }
        Ok(fd)
    }

    /// A directory that only an upper layer's archive names without an entry must look as it does below: the uppermost one's metadata is what
    /// the merged view shows.
    fn like_lower(&self, made: &OwnedFd, path: &[u8]) -> Extracted<(u32, Option<Timespec>)> {
        for lower in self.lowers {
            let stat = match lower.lstat(Path::new(OsStr::from_bytes(path))) {
                Ok(stat) => stat,
                Err(RootError { source: Errno::NOENT, .. }) => continue,
                Err(_) => break,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                break;
            }
            if (stat.st_uid, stat.st_gid) != (0, 0) {
                rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
                    .map_err(ExtractError::kernel("set the owner of its directory"))?;
            }
            let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
            return Ok((stat.st_mode & 0o7777, Some(time)));
        }
        Ok((0o755, None))
    }
}

impl OpenDirectory {
    fn close(self) {
        if let Some(time) = self.mtime {
            // A time that the file system cannot store is no reason to fail.
            rustix::fs::futimens(&self.fd, &Timestamps { last_access: time, last_modification: time }).ok();
        }
    }
}

pub(super) fn timespec(mtime: Mtime) -> Timespec {
    Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
