//! What a container changed: its upper directory against the layers below (`diff`).
//!
//! Only the upper directory is walked; below, just the names it has are looked up, through each layer with its whiteouts and opaque
//! directories. The container may be running: what vanishes meanwhile is left out.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use berth_rootfs::OverlayRootfs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Result;
use crate::extract::{DEPTH_MAX, is_whiteout};
use crate::pack_tree::{failed, is_opaque, open_directory, sorted_names};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// Absolute path inside the container, as Docker's `diff` sorts and reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: PathBuf,
}

/// All changes, sorted by path: files added, changed or deleted, directories with changed metadata, and directories above any of them. Of a
/// deleted directory only itself.
///
/// # Errors
/// What the kernel says, with the path.
pub fn changes(rootfs: &OverlayRootfs) -> Result<Vec<Change>> {
    let Some(upper) = &rootfs.upper else { return Ok(Vec::new()) };
    let upper = open_directory(upper)?;
    let lowers = rootfs.lowers.iter().map(|lower| open_directory(lower)).collect::<Result<Vec<_>>>()?;
    let mut walk = Walk { found: Vec::new() };
    walk.directory(upper.as_fd(), &lowers, &mut b"/".to_vec(), 0)?;
    walk.found.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(walk.found)
}

struct Walk {
    found: Vec<Change>,
}

/// What the layers together show under a name.
enum Below {
    Nothing,
    Other,
    /// The directories that are merged, top to bottom, with the metadata of the first.
    Directory(Vec<OwnedFd>, Stat),
}

impl Walk {
    /// Looks at everything in one directory; `path` ends with a slash, `lowers` are what it is merged with. Tells whether anything changed.
    fn directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &[OwnedFd],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        if depth > DEPTH_MAX {
            return Err(failed("compare (too many levels of directories)", path, Errno::NAMETOOLONG));
        }
        let mut has_changed = false;
        let names = sorted_names(upper).map_err(|errno| failed("list", path, errno))?;
        for name in &names {
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            has_changed |= self.child(upper, lowers, name, path, depth)?;
            path.truncate(length);
        }
        if is_opaque(upper) {
            has_changed |= self.hidden(lowers, &names, path)?;
        }
        Ok(has_changed)
    }

    fn child(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &[OwnedFd],
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        let stat = match rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed("stat", path, errno)),
        };
        let below = below(lowers, name).map_err(|errno| failed("look below", path, errno))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let kind = match &below {
            Below::Nothing if is_whiteout(&stat) => return Ok(false),
            _ if is_whiteout(&stat) => ChangeKind::Deleted,
            Below::Nothing => ChangeKind::Added,
            _ => ChangeKind::Modified,
        };
        if !is_directory {
            self.push(kind, path);
            return Ok(true);
        }
        let child = match rustix::fs::openat(upper, name, DIRECTORY, Mode::empty()) {
            Ok(child) => child,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(failed("open", path, errno)),
        };
        let mut has_changed = kind == ChangeKind::Added;
        let merged = match below {
            Below::Directory(merged, lower) => {
                has_changed |= differs(&stat, &lower);
                merged
            }
            Below::Other => {
                has_changed = true;
                Vec::new()
            }
            Below::Nothing => Vec::new(),
        };
        path.push(b'/');
        has_changed |= self.directory(child.as_fd(), &merged, path, depth + 1)?;
        path.pop();
        if has_changed {
            self.push(kind, path);
        }
        Ok(has_changed)
    }

    /// An opaque directory deletes what it does not have itself.
    fn hidden(&mut self, lowers: &[OwnedFd], upper_names: &[CString], path: &mut Vec<u8>) -> Result<bool> {
        let mut names = BTreeSet::new();
        for lower in lowers {
            names.extend(sorted_names(lower.as_fd()).map_err(|errno| failed("list", path, errno))?);
        }
        let mut has_changed = false;
        for name in names.iter().filter(|name| upper_names.binary_search(name).is_err()) {
            let below = below(lowers, name).map_err(|errno| failed("look below", path, errno))?;
            if !matches!(below, Below::Nothing) {
                let length = path.len();
                path.extend_from_slice(name.to_bytes());
                self.push(ChangeKind::Deleted, path);
                path.truncate(length);
                has_changed = true;
            }
        }
        Ok(has_changed)
    }

    fn push(&mut self, kind: ChangeKind, path: &[u8]) {
        self.found.push(Change { kind, path: PathBuf::from(OsStr::from_bytes(path)) });
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Looks a name up as the overlay does: the first layer that has it decides, directories go on below until one is opaque or hidden.
fn below(lowers: &[OwnedFd], name: &CStr) -> std::result::Result<Below, Errno> {
    let mut merged = Vec::new();
    let mut first = None;
    for lower in lowers {
        let stat = match rustix::fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if merged.is_empty() && !is_whiteout(&stat) {
                return Ok(Below::Other);
            }
            break;
        }
        let directory = rustix::fs::openat(lower, name, DIRECTORY, Mode::empty())?;
        let is_last = is_opaque(directory.as_fd());
        merged.push(directory);
        first.get_or_insert(stat);
        if is_last {
            break;
        }
    }
    Ok(first.map_or(Below::Nothing, |stat| Below::Directory(merged, stat)))
}

/// Whether a directory's own metadata changed; its size and link count say nothing.
fn differs(upper: &Stat, lower: &Stat) -> bool {
    let look = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
    look(upper) != look(lower)
}
