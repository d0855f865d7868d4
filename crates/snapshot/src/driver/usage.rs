//! Counting what a tree holds.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Result, SnapshotError, Usage};

/// Levels of directories a walk follows; each holds a descriptor open.
pub(super) const DEPTH_MAX: usize = 256;
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSize {
    pub usage: Usage,
    /// Bytes of all blocks that files, directories and links take on the disk: what `du` counts.
    pub disk_bytes: u64,
}

/// Bytes of regular files, inodes and blocks in a tree; several names of one file are counted once. With a base: of what is not the same there.
pub(crate) fn measure(tree: &Path, base: Option<&Path>) -> Result<TreeSize> {
    let directory = open(tree)?;
    let base = base.map(open).transpose()?;
    let top = rustix::fs::fstat(&directory).map_err(|errno| SnapshotError::io("stat", tree, errno.into()))?;
    let size = TreeSize { usage: Usage { size_bytes: 0, inodes: 1 }, disk_bytes: blocks_bytes(&top) };
    let mut walk = UsageWalk { tree, linked: HashSet::new(), size };
    walk.add(&directory, base.as_ref(), 0)?;
    Ok(walk.size)
}

/// `st_blocks` are of 512 bytes whatever the file system's are.
fn blocks_bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|errno| SnapshotError::io("open", path, errno.into()))
}

struct UsageWalk<'p> {
    tree: &'p Path,
    /// Inode numbers of files with several names.
    linked: HashSet<u64>,
    size: TreeSize,
}

impl UsageWalk<'_> {
    fn add(&mut self, directory: &OwnedFd, base: Option<&OwnedFd>, depth: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            return Err(SnapshotError::TooDeep { path: self.tree.to_owned(), levels: DEPTH_MAX });
        }
        let error = |errno: Errno| SnapshotError::io("list", self.tree, io::Error::from(errno));
        for entry in Dir::read_from(directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match self.add_entry(directory.as_fd(), base, name) {
                Ok(Some(child)) => {
                    let below = base.and_then(|base| rustix::fs::openat(base, name, DIRECTORY, Mode::empty()).ok());
                    self.add(&child, below.as_ref(), depth + 1)?;
                }
                // Gone or exchanged meanwhile: the container may be running.
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(SnapshotError::io("stat files in", self.tree, errno.into())),
            }
        }
        Ok(())
    }

    /// Counts a file; a directory comes back opened.
    fn add_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        base: Option<&OwnedFd>,
        name: &std::ffi::CStr,
    ) -> std::result::Result<Option<OwnedFd>, Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let below = base.and_then(|base| rustix::fs::statat(base, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let is_same = below.is_some_and(|below| is_same(&stat, &below));
        let is_first_name = kind == FileType::Directory || stat.st_nlink < 2 || self.linked.insert(stat.st_ino);
        if is_first_name && !is_same {
            self.size.usage.inodes += 1;
            self.size.disk_bytes = self.size.disk_bytes.saturating_add(blocks_bytes(&stat));
        }
        match kind {
            FileType::Directory => rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()).map(Some),
            FileType::RegularFile if is_first_name && !is_same => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.size.usage.size_bytes = self.size.usage.size_bytes.saturating_add(size);
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Whether a file looks like the one it was copied from: a copy keeps all of this, a change of content changes some of it.
fn is_same(one: &Stat, other: &Stat) -> bool {
    let look = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, stat.st_mtime, stat.st_mtime_nsec);
    let is_directory = FileType::from_raw_mode(one.st_mode) == FileType::Directory;
    look(one) == look(other) && (is_directory || one.st_size == other.st_size)
}
