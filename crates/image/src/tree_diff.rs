//! What differs between two whole trees, by walking both: for snapshotters whose writable layer is a copy, and for mounts of anybody's.
//!
//! A file counts as the same when everything stat(2) tells of it but its place is the same and it has the same attributes and link target: a copy
//! keeps all that, and a change of its content changes its time. Where times have no fractions (some file systems, some archives) the contents of
//! files with equal times are compared too.

use std::ffi::{CStr, CString, OsStr};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::changes::{Change, ChangeKind};
use crate::extract::DEPTH_MAX;
use crate::pack_tree::{Tree, TreePacker, failed, open_directory, sorted_names, xattrs};
use crate::tar_stream::{TarWriter, Xattr};
use crate::{ImageError, Result};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BUFFER_SIZE: usize = 128 << 10;

/// What a container changed, as `diff` lists it.
///
/// # Errors
/// What the kernel says, with the path.
pub fn changes(base: &Path, rootfs: &OverlayRootfs) -> Result<Vec<Change>> {
    let Some(tree) = &rootfs.upper else { return Ok(Vec::new()) };
    let mut list = List { found: Vec::new() };
    let mut walk = Walk { target: &mut list, buffer: vec![0; BUFFER_SIZE] };
    walk.directory(Some(open_directory(base)?.as_fd()), open_directory(tree)?.as_fd(), &mut b"/".to_vec(), 0)?;
    list.found.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(list.found)
}

/// The layer tar that makes `tree` out of `base` (or of nothing). The same two trees always give the same bytes.
///
/// # Errors
/// What the kernel says, with the path; `InvalidArgument` for a name that means a whiteout.
pub fn pack(base: Option<&Path>, tree: &Path, out: &mut dyn Write) -> Result<()> {
    let tree = open_directory(tree)?;
    let base = base.map(open_directory).transpose()?;
    let mut packer = TreePacker::new(TarWriter::new(out), Tree::Whole);
    let mut buffer = vec![0; BUFFER_SIZE];
    let is_changed = match &base {
        Some(base) => !same_attributes(base.as_fd(), tree.as_fd(), &mut buffer)?,
        None => look(&stat_of(tree.as_fd(), b"/")?) != (0o755 | FileType::Directory.as_raw_mode(), 0, 0, 0),
    };
    if is_changed {
        packer.directory_entry(tree.as_fd(), b"./")?;
    }
    let mut walk = Walk { target: &mut packer, buffer };
    walk.directory(base.as_ref().map(AsFd::as_fd), tree.as_fd(), &mut Vec::new(), 0)?;
    packer.finish()
}

/// Where differences go.
trait Target {
    /// A name that only the new tree has, or whose thing was replaced or changed; of a directory with all below it when it is new.
    fn put(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
        kind: ChangeKind,
    ) -> Result<()>;
    /// A directory in both trees, before what is in it: `is_changed` itself.
    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], is_changed: bool) -> Result<()>;
    /// The same after what is in it.
    fn leave(&mut self, path: &[u8], has_changed: bool);
    fn delete(&mut self, name: &CStr, path: &[u8]) -> Result<()>;
}

impl Target for TreePacker<'_> {
    fn put(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
        _kind: ChangeKind,
    ) -> Result<()> {
        self.child(parent, name, path, depth)
    }

    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], is_changed: bool) -> Result<()> {
        if is_changed { self.directory_entry(directory, path) } else { Ok(()) }
    }

    fn leave(&mut self, _path: &[u8], _has_changed: bool) {}

    fn delete(&mut self, name: &CStr, path: &[u8]) -> Result<()> {
        self.whiteout(path, name.to_bytes())
    }
}

struct List {
    found: Vec<Change>,
}

impl List {
    fn push(&mut self, kind: ChangeKind, path: &[u8]) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.found.push(Change { kind, path: PathBuf::from(OsStr::from_bytes(path)) });
    }

    fn below(&mut self, directory: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(failed("compare (too many levels of directories)", path, Errno::NAMETOOLONG));
        }
        path.push(b'/');
        for name in sorted_names(directory).map_err(|errno| failed("list", path, errno))? {
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            self.push(ChangeKind::Added, path);
            if let Ok(child) = rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty()) {
                self.below(child.as_fd(), path, depth + 1)?;
            }
            path.truncate(length);
        }
        path.pop();
        Ok(())
    }
}

impl Target for List {
    fn put(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
        kind: ChangeKind,
    ) -> Result<()> {
        self.push(kind, path);
        match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Ok(child) => self.below(child.as_fd(), path, depth + 1),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(failed("open", path, errno)),
        }
    }

    fn enter(&mut self, _directory: BorrowedFd<'_>, _path: &[u8], _is_changed: bool) -> Result<()> {
        Ok(())
    }

    fn leave(&mut self, path: &[u8], has_changed: bool) {
        if has_changed {
            self.push(ChangeKind::Modified, path);
        }
    }

    fn delete(&mut self, _name: &CStr, path: &[u8]) -> Result<()> {
        self.push(ChangeKind::Deleted, path);
        Ok(())
    }
}

struct Walk<'t, T> {
    target: &'t mut T,
    buffer: Vec<u8>,
}

impl<T: Target> Walk<'_, T> {
    /// `path` is empty or ends with a slash. Tells whether anything changed.
    fn directory(
        &mut self,
        base: Option<BorrowedFd<'_>>,
        tree: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        if depth > DEPTH_MAX {
            return Err(failed("compare (too many levels of directories)", path, Errno::NAMETOOLONG));
        }
        let list = |directory| sorted_names(directory).map_err(|errno| failed("list", path, errno));
        let new = list(tree)?;
        let old = base.map(list).transpose()?.unwrap_or_default();
        let mut has_changed = false;
        for (name, is_old, is_new) in merged(old, new) {
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            has_changed |= match (base.filter(|_| is_old), is_new) {
                (Some(base), true) => self.both(base, tree, &name, path, depth)?,
                (None, _) => {
                    self.target.put(tree, &name, path, depth, ChangeKind::Added)?;
                    true
                }
                (Some(_), false) => {
                    self.target.delete(&name, path)?;
                    true
                }
            };
            path.truncate(length);
        }
        Ok(has_changed)
    }

    fn both(
        &mut self,
        base: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        let stat = |directory| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let old = stat(base).map_err(|errno| failed("stat", path, errno))?;
        let new = match stat(tree) {
            Ok(new) => new,
            // Gone meanwhile: the container may be running.
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed("stat", path, errno)),
        };
        let kinds = [&old, &new].map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kinds == [FileType::Directory; 2] {
            return self.both_directories(base, tree, name, path, depth);
        }
        if kinds[0] == kinds[1] && self.is_same(base, tree, name, &old, &new, path)? {
            return Ok(false);
        }
        self.target.put(tree, name, path, depth, ChangeKind::Modified)?;
        Ok(true)
    }

    fn both_directories(
        &mut self,
        base: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        let open = |directory| rustix::fs::openat(directory, name, DIRECTORY, Mode::empty());
        let old = open(base).map_err(|errno| failed("open", path, errno))?;
        let new = match open(tree) {
            Ok(new) => new,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(failed("open", path, errno)),
        };
        path.push(b'/');
        let is_changed = !same_attributes(old.as_fd(), new.as_fd(), &mut self.buffer)?;
        self.target.enter(new.as_fd(), path, is_changed)?;
        let has_changed = self.directory(Some(old.as_fd()), new.as_fd(), path, depth + 1)? || is_changed;
        self.target.leave(path, has_changed);
        path.pop();
        Ok(has_changed)
    }

    fn is_same(
        &mut self,
        base: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        name: &CStr,
        old: &Stat,
        new: &Stat,
        path: &[u8],
    ) -> Result<bool> {
        if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) {
            return Ok(true);
        }
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if look(old) != look(new) || old.st_size != new.st_size || time(old) != time(new) {
            return Ok(false);
        }
        match FileType::from_raw_mode(new.st_mode) {
            FileType::Symlink => {
                let target = |directory| rustix::fs::readlinkat(directory, name, Vec::new());
                Ok(target(base).ok() == target(tree).ok())
            }
            FileType::RegularFile => {
                let open = |directory| open_file(directory, name).map_err(|errno| failed("open", path, errno));
                let (old_file, new_file) = (open(base)?, open(tree)?);
                let mut attributes = |file: &OwnedFd| xattrs(file.as_fd(), padded(&mut self.buffer));
                let (one, other): (Vec<Xattr>, Vec<Xattr>) = (
                    attributes(&old_file).map_err(|errno| failed("read the attributes of", path, errno))?,
                    attributes(&new_file).map_err(|errno| failed("read the attributes of", path, errno))?,
                );
                if one != other {
                    return Ok(false);
                }
                Ok(new.st_mtime_nsec != 0 || new.st_size == 0 || same_content(old_file, new_file, path)?)
            }
            _ => Ok(true),
        }
    }
}

/// The attribute reader takes a buffer for names and values.
fn padded(buffer: &mut Vec<u8>) -> &mut [u8] {
    buffer.resize(BUFFER_SIZE, 0);
    buffer
}

fn open_file(directory: BorrowedFd<'_>, name: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let held = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // By now the name may be something else; what is held is looked at before it is opened.
    if FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    let readable = format!("/proc/self/fd/{}", held.as_raw_fd());
    rustix::fs::open(readable, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn same_content(old: OwnedFd, new: OwnedFd, path: &[u8]) -> Result<bool> {
    let failed =
        |source| ImageError::Io { operation: "compare", object: String::from_utf8_lossy(path).into_owned(), source };
    let (mut old, mut new) = (std::fs::File::from(old), std::fs::File::from(new));
    let (mut one, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = old.read(&mut one).map_err(failed)?;
        if length == 0 {
            return Ok(new.read(&mut other).map_err(failed)? == 0);
        }
        match new.read_exact(&mut other[..length]) {
            Ok(()) if one[..length] == other[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// A directory's own attributes and time.
fn same_attributes(old: BorrowedFd<'_>, new: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<bool> {
    let (old_stat, new_stat) = (stat_of(old, b"/")?, stat_of(new, b"/")?);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    if look(&old_stat) != look(&new_stat) || time(&old_stat) != time(&new_stat) {
        return Ok(false);
    }
    let mut attributes = |directory| {
        xattrs(directory, padded(buffer)).map_err(|errno| failed("read the attributes of", b"a directory", errno))
    };
    Ok(attributes(old)? == attributes(new)?)
}

fn stat_of(fd: BorrowedFd<'_>, path: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|errno| failed("stat", path, errno))
}

fn look(stat: &Stat) -> (u32, u32, u32, u64) {
    (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev)
}

/// Both sorted lists as one, each name with where it is.
fn merged(old: Vec<CString>, new: Vec<CString>) -> Vec<(CString, bool, bool)> {
    let mut all: Vec<(CString, bool, bool)> = Vec::with_capacity(old.len().max(new.len()));
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return all,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.cmp(other),
        };
        let (one, other) = (old.next_if(|_| order.is_le()), new.next_if(|_| order.is_ge()));
        let (is_old, is_new) = (one.is_some(), other.is_some());
        all.extend(one.or(other).map(|name| (name, is_old, is_new)));
    }
}
