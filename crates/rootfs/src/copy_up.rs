//! `tmpcopyup`: a tmpfs starts with a copy of the directory it is going to hide.
//!
//! Works on descriptors and never follows a link of either tree. Directories, regular files, links, FIFOs and nodes with mode, owner
//! and times are copied; extended attributes are not.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// Deeper trees are refused, so the stack has a bound.
const DEPTH_MAX: usize = 64;

/// Copies what is in one directory into another.
///
/// # Errors
/// The kernel's; `ELOOP` for a tree that is too deep.
pub fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let readable = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(readable.as_fd(), to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let open = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = open | OFlags::RDONLY | OFlags::DIRECTORY;
            let inner_from = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let inner_to = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(inner_from.as_fd(), inner_to.as_fd(), depth + 1)?;
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, open | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let flags = open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let target = rustix::fs::openat(to, name, flags, mode)?;
            let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
            std::io::copy(&mut source, &mut target)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link, to, name)?;
            return own(to, name, &stat);
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
        }
        // A socket without its listener is nothing.
        _ => return Ok(()),
    }
    own(to, name, &stat)?;
    rustix::fs::chmodat(to, name, mode, AtFlags::empty())
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
