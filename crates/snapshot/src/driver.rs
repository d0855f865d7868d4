//! What differs between ways to keep layers: how the directories are made and what a root file system made of them is.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::{Result, SnapshotError, Trash, Usage};

/// One way to keep files. `home` is a directory of the store's that the driver fills; the store makes, renames and deletes it.
pub trait Driver: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// Where a layer's files are in its home.
    fn files(&self, home: &Path) -> PathBuf;

    /// Makes the empty directory a layer is unpacked into, and returns it.
    ///
    /// # Errors
    /// What the kernel says.
    fn make_layer(&self, home: &Path) -> Result<PathBuf>;

    /// Makes the writable layer of a container on top of `lowers` (top to bottom). On the path of every start: a few system calls.
    ///
    /// # Errors
    /// What the kernel says.
    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()>;

    /// The plan of the root file system with that writable layer.
    ///
    /// # Errors
    /// What the kernel says.
    fn rootfs(&self, home: &Path, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs>;

    /// Those of the lowers (top to bottom) that a mount needs.
    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf>;

    /// Turns a writable layer into one that is only read from now on.
    ///
    /// # Errors
    /// What the kernel says.
    fn freeze(&self, home: &Path, trash: &Trash) -> Result<()>;

    /// Regular files' bytes, and inodes, in the writable layer.
    ///
    /// # Errors
    /// What the kernel says.
    fn writable_usage(&self, rootfs: &OverlayRootfs) -> Result<Usage>;
}

/// Layers are directories, a root file system is an overlay of them.
#[derive(Debug, Clone, Copy)]
pub struct OverlayDriver;

/// Levels of directories a size walk follows; each holds a descriptor open.
const DEPTH_MAX: usize = 256;
const OPAQUE: &str = "trusted.overlay.opaque";

impl Driver for OverlayDriver {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn files(&self, home: &Path) -> PathBuf {
        home.join("fs")
    }

    fn make_layer(&self, home: &Path) -> Result<PathBuf> {
        let files = self.files(home);
        make_dir(&files, Mode::from_raw_mode(0o755))?;
        Ok(files)
    }

    /// The upper directory is the merged root as the container sees it, so it takes owner, mode and time of the uppermost layer's.
    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        let (upper, work) = (self.files(home), home.join("work"));
        let top = match lowers.first() {
            Some(top) => Some(fs::metadata(top).map_err(|source| SnapshotError::io("stat layer", top, source))?),
            None => None,
        };
        let mode = Mode::from_raw_mode(top.as_ref().map_or(0o755, |top| top.mode() & 0o7777));
        make_dir(&upper, mode)?;
        make_dir(&work, Mode::RWXU)?;
        if let Some(top) = top.filter(|top| top.uid() != 0 || top.gid() != 0) {
            let (uid, gid) = (Uid::from_raw(top.uid()), Gid::from_raw(top.gid()));
            rustix::fs::chownat(CWD, &upper, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| SnapshotError::io("change the owner of", &upper, errno.into()))?;
        }
        // The process's mask, and the change of owner, take bits away.
        rustix::fs::chmodat(CWD, &upper, mode, AtFlags::empty())
            .map_err(|errno| SnapshotError::io("change the mode of", &upper, errno.into()))
    }

    /// A layer whose root is opaque hides all layers below. The kernel reads the attribute on every directory but the root, so the
    /// hidden layers are left out here.
    fn visible(&self, mut lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        if let Some(last) = lowers.iter().position(|lower| is_opaque(lower)) {
            lowers.truncate(last + 1);
        }
        lowers
    }

    fn freeze(&self, home: &Path, trash: &Trash) -> Result<()> {
        trash.put(&home.join("work"))
    }

    fn rootfs(&self, home: &Path, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs> {
        Ok(OverlayRootfs {
            lowers: self.visible(lowers),
            upper: Some(self.files(home)),
            work: Some(home.join("work")),
            is_volatile: is_throw_away,
        })
    }

    fn writable_usage(&self, rootfs: &OverlayRootfs) -> Result<Usage> {
        let Some(upper) = &rootfs.upper else { return Ok(Usage::default()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(upper, flags, Mode::empty())
            .map_err(|errno| SnapshotError::io("open", upper, errno.into()))?;
        let mut walk = SizeWalk { upper, linked: HashSet::new(), usage: Usage { size_bytes: 0, inodes: 1 } };
        walk.add(&directory, 0)?;
        Ok(walk.usage)
    }
}

fn is_opaque(layer: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(layer, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

fn make_dir(path: &Path, mode: Mode) -> Result<()> {
    rustix::fs::mkdir(path, mode).map_err(|errno| SnapshotError::io("create", path, errno.into()))
}

struct SizeWalk<'p> {
    upper: &'p Path,
    /// Inode numbers of files with several names.
    linked: HashSet<u64>,
    usage: Usage,
}

impl SizeWalk<'_> {
    fn add(&mut self, directory: &OwnedFd, depth: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            return Err(SnapshotError::TooDeep { path: self.upper.to_owned(), levels: DEPTH_MAX });
        }
        let error = |errno: Errno| SnapshotError::io("list", self.upper, io::Error::from(errno));
        for entry in Dir::read_from(directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match self.add_entry(directory.as_fd(), name) {
                Ok(Some(child)) => self.add(&child, depth + 1)?,
                // Gone or exchanged meanwhile: the container may be running.
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(SnapshotError::io("stat files in", self.upper, errno.into())),
            }
        }
        Ok(())
    }

    /// Counts a file; a directory comes back opened.
    fn add_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &std::ffi::CStr,
    ) -> std::result::Result<Option<OwnedFd>, Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_first_name = kind == FileType::Directory || stat.st_nlink < 2 || self.linked.insert(stat.st_ino);
        self.usage.inodes += u64::from(is_first_name);
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(directory, name, flags, Mode::empty()).map(Some)
            }
            FileType::RegularFile if is_first_name => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.usage.size_bytes = self.usage.size_bytes.saturating_add(size);
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}
