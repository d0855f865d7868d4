//! Copying a whole tree with everything that belongs to it: owners, modes, times, all extended attributes (so also ACLs and capabilities), hard
//! links, holes, devices, sockets. Blocks are shared where the file system can, else copied inside the kernel.
//!
//! The source is a finished layer and nobody changes it meanwhile. By descriptors; links are copied, never followed.

use std::collections::HashMap;
use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::usage::{DEPTH_MAX, DIRECTORY, open};
use crate::{Result, SnapshotError};

const XATTR_BYTES_MAX: usize = 64 << 10;

/// Copies what is in `from`, and its own attributes, into the empty directory `to`.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copier = Copier { linked: HashMap::new(), shares_blocks: true, root: open(to)?, path: OsString::new() };
    let (source, target) = (open(from)?, open(to)?);
    copier.directory(&source, &target, 0).map_err(|errno| SnapshotError::io("copy", from, errno.into()))
}

struct Copier {
    /// Where the first name of a file with several was copied to, by inode, relative to the root.
    linked: HashMap<u64, OsString>,
    shares_blocks: bool,
    root: OwnedFd,
    path: OsString,
}

impl Copier {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> std::result::Result<(), Errno> {
        use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
        if depth == DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let mut path = std::mem::take(&mut self.path).into_vec();
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.path = OsString::from_vec(path);
            self.entry(from.as_fd(), to.as_fd(), name, depth)?;
            self.path = std::ffi::OsStr::from_bytes(&self.path.as_bytes()[..length]).to_owned();
        }
        // Last: what is made in a directory changes its time.
        let stat = rustix::fs::fstat(from)?;
        copy_attributes(from.as_fd(), to.as_fd(), &stat)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> std::result::Result<(), Errno> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let source = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
            let target = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
            return self.directory(&source, &target, depth + 1);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&stat.st_ino) {
                return rustix::fs::linkat(&self.root, first, to, name, AtFlags::empty());
            }
            self.linked.insert(stat.st_ino, self.path.clone());
        }
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
                let target = rustix::fs::openat(to, name, new, Mode::RUSR | Mode::WUSR)?;
                self.content(&source, &target, u64::try_from(stat.st_size).unwrap_or(0))?;
                copy_attributes(source.as_fd(), target.as_fd(), &stat)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
                copy_attributes_by_path(from, to, name, &stat)
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?;
                copy_attributes_by_path(from, to, name, &stat)
            }
        }
    }

    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> std::result::Result<(), Errno> {
        if size == 0 {
            return Ok(());
        }
        if self.shares_blocks {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // This file system cannot; it need not be asked for each file.
                Err(_) => self.shares_blocks = false,
            }
        }
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno),
            };
            at = rustix::fs::seek(from, SeekFrom::Hole(start))?;
            copy_range(from, to, start, at)?;
        }
        rustix::fs::ftruncate(to, size)
    }
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> std::result::Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let wanted = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// In the order in which none undoes another: owner, mode, attributes (a change of owner takes capabilities away), times.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> std::result::Result<(), Errno> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(from, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut value = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        value.resize(XATTR_BYTES_MAX, 0);
        let found = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..found], XattrFlags::empty()) {
            // Labels of the host's security modules are theirs.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if name.starts_with(b"security.") => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::futimens(to, &times(stat))
}

/// For what must not be opened. The names are fresh in a directory of ours.
fn copy_attributes_by_path(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
) -> std::result::Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let path = |directory: BorrowedFd<'_>| {
        use std::os::unix::ffi::OsStrExt as _;
        Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd()))
            .join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    };
    let (source, target) = (path(from), path(to));
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = rustix::fs::llistxattr(&source, &mut list).unwrap_or(0);
    let mut value = vec![0; XATTR_BYTES_MAX];
    for attribute in list[..length].split(|byte| *byte == 0).filter(|attribute| !attribute.is_empty()) {
        let found = rustix::fs::lgetxattr(&source, attribute, &mut value)?;
        match rustix::fs::lsetxattr(&target, attribute, &value[..found], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.cast_signed() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
