//! Removing a tree by descriptors: links are removed, never followed; mounts are refused, never entered.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::RootError;

/// Directories held open at once. Whoever owned the tree chose its depth, so it must not decide about our descriptors and our stack.
const DEPTH_MAX: usize = 256;
/// The same where deeper ones can be moved away: deletion in the background runs with a small stack.
const DEPTH_MAX_WITH_OVERFLOW: usize = 48;
/// How often a directory is emptied again that somebody else fills meanwhile.
const REFILLS_MAX: usize = 16;

/// Where directories too deep to hold all their parents open are moved to. What is moved there is the caller's to remove next.
#[derive(Debug, Clone, Copy)]
pub struct Overflow<'fd>(pub BorrowedFd<'fd>);

/// Removes `name` in `parent` and everything below it. A name that does not exist is fine.
///
/// # Errors
/// `Busy` where something is mounted below, `TooDeep` (`ELOOP`) beyond 256 levels without an `overflow`, and what the kernel says.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, overflow: Option<Overflow<'_>>) -> Result<(), RootError> {
    let error = |source| RootError { operation: "remove", path: PathBuf::from(name), source };
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let name = CStr::from_bytes_with_nul(&bytes).map_err(|_| error(Errno::INVAL))?;
    remove(parent, name, FileType::Unknown, overflow, 0).map_err(error)
}

fn remove(
    parent: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    overflow: Option<Overflow<'_>>,
    depth: usize,
) -> Result<(), Errno> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    for _ in 0..REFILLS_MAX {
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let depth_max = if overflow.is_some() { DEPTH_MAX_WITH_OVERFLOW } else { DEPTH_MAX };
        if depth == depth_max {
            return move_away(parent, name, overflow.ok_or(Errno::LOOP)?);
        }
        match open_directory(parent, name) {
            Ok(directory) => remove_children(&directory, overflow, depth + 1)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::XDEV) => return Err(Errno::BUSY),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::NOTEMPTY)
}

fn remove_children(directory: &OwnedFd, overflow: Option<Overflow<'_>>, depth: usize) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            remove(directory.as_fd(), name, entry.file_type(), overflow, depth)?;
        }
    }
    Ok(())
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    crate::root_dir::retry_race(|| rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve))
}

fn move_away(parent: BorrowedFd<'_>, name: &CStr, overflow: Overflow<'_>) -> Result<(), Errno> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let new_name = format!("deep-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        match rustix::fs::renameat_with(parent, name, overflow.0, new_name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn links_are_removed_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "c").unwrap();
        fs::create_dir_all(dir.path().join("tree/a/b")).unwrap();
        symlink(dir.path().join("outside"), dir.path().join("tree/a/out")).unwrap();
        symlink(dir.path().join("outside"), dir.path().join("link")).unwrap();
        let parent = open(dir.path());
        for name in ["tree", "link", "nothing"] {
            remove_tree(parent.as_fd(), OsStr::new(name), None).unwrap();
            assert!(fs::symlink_metadata(dir.path().join(name)).is_err(), "{name}");
        }
        assert_eq!(fs::read(dir.path().join("outside/canary")).unwrap(), b"c");
    }

    #[test]
    fn depth_needs_an_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 300).collect();
        fs::create_dir_all(dir.path().join("tree").join(deep)).unwrap();
        let parent = open(dir.path());
        let error = remove_tree(parent.as_fd(), OsStr::new("tree"), None).unwrap_err();
        assert_eq!(error.source, Errno::LOOP);
        let mut rounds = 0;
        while let Some(entry) = fs::read_dir(dir.path()).unwrap().next() {
            let name = entry.unwrap().file_name();
            remove_tree(parent.as_fd(), &name, Some(Overflow(parent.as_fd()))).unwrap();
            rounds += 1;
        }
        assert_eq!(rounds, 7);
    }
}
