//! Deleting what shims left in a bundle, from descriptor to descriptor.
//!
//! The bundle itself is root's, and only root writes into it. But what is below is whatever a shim of somebody else's makes there: it may be open to
//! users of the host, or be shared with a container, and then a directory can be exchanged for a link or a mount at any moment. So no name is looked
//! up twice, no link is followed, and no mount is entered: `openat2` itself refuses (openat2(2), Linux 5.6).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Directories in directories of a shim.
const DEPTH_MAX: usize = 32;
/// Mounts on one directory that are taken off at most.
const MOUNTS_MAX: usize = 16;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A directory of ours, by a path that nobody else can change but for its end.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
}

/// Deletes all that is in a directory; what is called `root` goes when it is empty, and is never entered.
///
/// # Errors
/// With the first name that could not be deleted.
pub(super) fn empty(dir: &OwnedFd, root: &str) -> Result<(), (CString, Errno)> {
    for name in names(dir).map_err(|errno| (CString::default(), errno))? {
        let removed = if name.to_bytes() == root.as_bytes() {
            take_mounts_off(dir.as_fd(), &name);
            gone(unlinkat(dir, &name, AtFlags::REMOVEDIR))
        } else {
            remove(dir.as_fd(), &name, DEPTH_MAX)
        };
        removed.map_err(|errno| (name, errno))?;
    }
    Ok(())
}

/// An entry with what is below it. Mounts on it are taken off, never gone into.
fn remove(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    match remove_unmounted(dir, name, depth) {
        Err(Errno::XDEV | Errno::BUSY) => {
            take_mounts_off(dir, name);
            remove_unmounted(dir, name, depth).map_err(|errno| if errno == Errno::XDEV { Errno::BUSY } else { errno })
        }
        other => other,
    }
}

fn remove_unmounted(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    let inside = match openat2(dir, name, DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS)
    {
        // A link, or no directory.
        Err(Errno::LOOP | Errno::NOTDIR) => return gone(unlinkat(dir, name, AtFlags::empty())),
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let depth = depth.checked_sub(1).ok_or(Errno::NOTEMPTY)?;
    for name in names(&inside)? {
        remove(inside.as_fd(), &name, depth)?;
    }
    gone(unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Its shim may take away what is its own at the same moment.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let entries = Dir::read_from(dir)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names.filter(|name| !matches!(name.as_deref().map(CStr::to_bytes), Ok(b"." | b".."))).collect()
}

/// By the directory's descriptor: unmounting takes paths only.
fn take_mounts_off(dir: BorrowedFd<'_>, name: &CStr) {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    for _ in 0..MOUNTS_MAX {
        if unmount(path.as_slice(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Somebody exchanges a directory for a link to a directory of the host while it is deleted, again and again: nothing of the host's goes.
    #[test]
    fn a_directory_that_becomes_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (host, bundle) = (dir.path().join("host"), dir.path().join("bundle"));
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("kept"), "x").unwrap();
        let (is_over, mut is_kept) = (AtomicBool::new(false), true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (place, link) = (bundle.join("shim/place"), dir.path().join("link"));
                while !is_over.load(Ordering::Relaxed) {
                    // From where it is put.
                    drop(symlink("../../host", &link));
                    rustix::fs::renameat_with(CWD, &link, CWD, &place, rustix::fs::RenameFlags::EXCHANGE).ok();
                    drop(std::fs::remove_dir_all(&link).or_else(|_| std::fs::remove_file(&link)));
                }
            });
            for _ in 0..1000 {
                drop(std::fs::create_dir_all(bundle.join("shim/place/deep")));
                // It may find what came meanwhile; what counts is what it never deletes.
                drop(open(&bundle).map(|dir| empty(&dir, "rootfs")));
                is_kept = host.join("kept").exists();
                if !is_kept {
                    break;
                }
                drop(std::fs::remove_file(bundle.join("shim/place")));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(is_kept, "a file of the host is gone");
    }

    #[test]
    fn depth_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let deep = (0..40).fold(dir.path().join("bundle"), |path, _| path.join("d"));
        std::fs::create_dir_all(deep).unwrap();
        let (name, errno) = empty(&open(&dir.path().join("bundle")).unwrap(), "rootfs").unwrap_err();
        assert_eq!((name.to_bytes(), errno), (&b"d"[..], Errno::NOTEMPTY));
    }
}
