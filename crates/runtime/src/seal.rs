//! The runtime's own executable, out of a container's reach (CVE-2019-5736).
//!
//! A container can make the runtime execute `/proc/self/exe` (as its program, as the interpreter of a script): then a process of the
//! container runs from the runtime's file, and who is root there may open that file by `/proc/PID/exe` and write to it. So who enters
//! a container must itself run from something nobody can write: a sealed memfd, or a file on a read-only mount that only this process
//! has. The mount costs no copy: it is a detached clone of the directory's, made read-only, and goes with the process. Its flag
//! cannot be taken back from inside: the mount is in nobody's namespace, and a link to the file is not the mount's root.
//!
//! Below the daemon the shim runs from a sealed memfd already; there, and on a read-only file system, this is one look and no more.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_rootfs::mounts::{clone_tree, set_read_only};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::RuntimeError;
use crate::procfs::Procfs;

/// No executable of ours is larger.
const COPY_MAX: u64 = 256 << 20;

/// What to execute instead of the file this process runs from, before a container is entered; `None` when no container can write that
/// file. Which ids a container's user namespace gives away may be told by `maps`, lines as in `/proc/PID/uid_map`.
///
/// # Errors
/// The kernel's, when neither a mount nor a copy can be made.
pub fn sealed_executable(maps: Option<&str>) -> Result<Option<OwnedFd>, RuntimeError> {
    let failed = |source| RuntimeError::Kernel { what: "seal the runtime's own executable", source };
    let own = open_own().map_err(failed)?;
    if is_sealed(&own).map_err(failed)? || is_foreign(&own, maps).map_err(failed)? {
        return Ok(None);
    }
    match on_read_only_mount(&own) {
        Ok(sealed) => Ok(Some(sealed)),
        // Without the right to mount, or when the file has no name any more.
        Err(_) => copy(own).map(Some).map_err(failed),
    }
}

/// The one magic link that is followed on purpose, below a checked procfs.
fn open_own() -> Result<OwnedFd, Errno> {
    let proc = Procfs::open()?;
    rustix::fs::openat(proc.as_fd(), "self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn is_sealed(own: &OwnedFd) -> Result<bool, Errno> {
    if rustix::fs::fstatvfs(own)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only a memfd has seals.
    Ok(rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Whether the container's root is nobody in particular for the file: its owner has no name in the user namespace, and others may
/// not write it.
fn is_foreign(own: &OwnedFd, maps: Option<&str>) -> Result<bool, Errno> {
    let Some(maps) = maps else { return Ok(false) };
    let stat = rustix::fs::fstat(own)?;
    let is_mapped = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let (_inside, outside, size) = (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten());
        match (outside, size) {
            (Some(first), Some(size)) => (first..first.saturating_add(size)).contains(&u64::from(stat.st_uid)),
            // What cannot be read may be anything.
            _ => true,
        }
    };
    let others_may_write = stat.st_mode & 0o022 != 0;
    Ok(!others_may_write && !maps.is_empty() && !maps.lines().any(is_mapped))
}

/// A clone of the mount at the directory, not of the file: a link to the file must not be the mount's root, of which the attributes
/// can be changed (mount_setattr(2)).
fn on_read_only_mount(own: &OwnedFd) -> Result<OwnedFd, Errno> {
    let proc = Procfs::open()?;
    let path = rustix::fs::readlinkat(proc.as_fd(), "self/exe", Vec::new())?;
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
    let mount = clone_tree(directory, false).map_err(|error| error.errno())?;
    set_read_only(mount.as_fd(), false)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, name, flags, Mode::empty())?;
    let (ours, theirs) = (rustix::fs::fstat(own)?, rustix::fs::fstat(&file)?);
    let is_same = (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino);
    let is_file = FileType::from_raw_mode(theirs.st_mode) == FileType::RegularFile;
    let is_read_only = rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    if is_same && is_file && is_read_only { Ok(file) } else { Err(Errno::STALE) }
}

fn copy(own: OwnedFd) -> Result<OwnedFd, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = std::fs::File::from(rustix::fs::memfd_create("berth-runtime", flags)?);
    let mut limited = std::fs::File::from(own).take(COPY_MAX);
    std::io::copy(&mut limited, &mut copy).map_err(errno)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2019_5736_a_copy_is_sealed() {
        let own = open_own().unwrap();
        let length = rustix::fs::fstat(&own).unwrap().st_size;
        let copied = copy(own).unwrap();
        assert_eq!(rustix::fs::fstat(&copied).unwrap().st_size, length);
        assert!(is_sealed(&copied).unwrap());
        assert!(rustix::io::write(&copied, b"x").is_err());
    }

    #[test]
    fn only_a_root_that_is_nobody_here_is_no_danger() {
        let own = open_own().unwrap();
        let owner = rustix::fs::fstat(&own).unwrap().st_uid;
        let closed = rustix::fs::fstat(&own).unwrap().st_mode & 0o022 == 0;
        let check = |maps: &str, expected: bool| {
            assert_eq!(is_foreign(&own, Some(maps)).unwrap(), expected && closed, "{maps:?}");
        };
        check(&format!("0 {} 65536\n", u64::from(owner) + 100_000), true);
        check(&format!("0 {owner} 1\n"), false);
        check("0 0 4294967295\n", false);
        check("", false);
        check("garbage", false);
        assert!(!is_foreign(&own, None).unwrap());
    }
}
