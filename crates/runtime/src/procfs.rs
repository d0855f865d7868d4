//! Files of procfs, written and read only through a descriptor that was checked to be the root of a procfs: no link, and no other
//! mount in the way (CVE-2019-19921, CVE-2025-52881).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_rootfs::mounts::{PROC_MAGIC, magic};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// `PROC_ROOT_INO`
const ROOT_INODE: u64 = 1;

/// The root directory of a procfs.
#[derive(Debug)]
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// The `/proc` of the calling process.
    ///
    /// # Errors
    /// `EINVAL` when something else is mounted there; the kernel's.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::verified(rustix::fs::open("/proc", flags, Mode::empty())?)
    }

    /// # Errors
    /// As [`Procfs::open`].
    pub(crate) fn verified(root: OwnedFd) -> Result<Self, Errno> {
        let is_root = rustix::fs::statat(&root, "", AtFlags::EMPTY_PATH)?.st_ino == ROOT_INODE;
        if is_root && magic(&root)? == PROC_MAGIC { Ok(Self(root)) } else { Err(Errno::INVAL) }
    }

    /// Opens a file below it. `self` and `thread-self` are links of procfs's own and allowed as the first part only.
    ///
    /// # Errors
    /// `EXDEV` when something is mounted over a part of the path, `ELOOP` for a link; the kernel's.
    pub(crate) fn file(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let strict = below | ResolveFlags::NO_SYMLINKS;
        match path.split_once('/') {
            Some((own @ ("self" | "thread-self"), rest)) => {
                let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let own = rustix::fs::openat2(&self.0, own, directory, Mode::empty(), below)?;
                rustix::fs::openat2(&own, rest, flags | OFlags::CLOEXEC, Mode::empty(), strict)
            }
            _ => rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), strict),
        }
    }

    /// Writes a file in one call.
    ///
    /// # Errors
    /// `EIO` when it was cut; as [`Procfs::file`].
    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<(), Errno> {
        let file = self.file(path, OFlags::WRONLY)?;
        match rustix::io::retry_on_intr(|| rustix::io::write(&file, content))? {
            written if written == content.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_procfs_passes() {
        let proc = Procfs::open().unwrap();
        assert!(proc.file("self/status", OFlags::RDONLY).is_ok());
        // Magic links lead out, `..` too.
        assert!(proc.file("self/exe", OFlags::RDONLY).is_err());
        assert!(proc.file("self/cwd/x", OFlags::RDONLY).is_err());
        assert!(proc.file("../etc/passwd", OFlags::RDONLY).is_err());
        let dir = tempfile::tempdir().unwrap();
        let fake = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(Procfs::verified(fake).unwrap_err(), Errno::INVAL);
        let inner = rustix::fs::open("/proc/self", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(Procfs::verified(inner).unwrap_err(), Errno::INVAL);
    }
}
