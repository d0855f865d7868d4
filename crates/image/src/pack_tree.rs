//! Writing a directory tree into an archive: sorted, by descriptors, each thing as it is. The tree may be changing under us and may belong to
//! somebody hostile; what vanishes meanwhile is left out, what is exchanged is never followed, and no device or fifo is ever opened.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::extract::{DEPTH_MAX, OPAQUE, is_whiteout};
use crate::tar_stream::{Entry, EntryKind, Mtime, TarError, TarWriter, Xattr};
use crate::{ImageError, Result};

/// What the kernel lets a list of attribute names, and one value, be.
const XATTR_SIZE_MAX: usize = 64 << 10;
const BUFFER_SIZE: usize = 2 * XATTR_SIZE_MAX;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// An overlay upper directory: its marks become OCI whiteouts.
    Layer,
    /// Part of a layer, out of a whole tree.
    Whole,
    /// A root file system with what is mounted in it, but not the kernel's own file systems.
    Mounted,
    /// A root file system alone: mount points are empty.
    Bare,
}

#[derive(Debug)]
pub(crate) struct TreePacker<'w> {
    writer: TarWriter<'w>,
    tree: Tree,
    /// First name of files with several, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The device last found to hold files of somebody's, not of the kernel.
    ordinary_device: Option<u64>,
    buffer: Box<[u8]>,
}

impl<'w> TreePacker<'w> {
    pub(crate) fn new(writer: TarWriter<'w>, tree: Tree) -> Self {
        let buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
        Self { writer, tree, linked: HashMap::new(), ordinary_device: None, buffer }
    }

    pub(crate) fn finish(self) -> Result<()> {
        Ok(self.writer.finish()?)
    }

    /// Writes the entry of an opened directory itself; `path` with a slash at its end.
    pub(crate) fn directory_entry(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let stat = rustix::fs::fstat(directory).map_err(|errno| failed("stat", path, errno))?;
        let mut entry = entry(EntryKind::Directory, path, &stat);
        entry.xattrs =
            xattrs(directory, &mut self.buffer).map_err(|errno| failed("read the attributes of", path, errno))?;
        Ok(self.writer.start(&entry)?)
    }

    /// Writes everything in a directory; names start with `path`, which is empty or ends with a slash.
    pub(crate) fn children(&mut self, directory: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(failed("pack (too many levels of directories)", path, Errno::NAMETOOLONG));
        }
        for name in sorted_names(directory).map_err(|errno| failed("list", path, errno))? {
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            match self.child(directory, &name, path, depth) {
                // Vanished, or exchanged for a link, while we looked.
                Err(ImageError::Io { source, .. })
                    if matches!(Errno::from_io_error(&source), Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) => {}
                done_or_failed => done_or_failed?,
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Writes one name of a directory, with what is below it.
    pub(crate) fn child(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<()> {
        let stat =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed("stat", path, errno))?;
        if self.tree == Tree::Layer && is_whiteout(&stat) {
            return self.whiteout(path, name.to_bytes());
        }
        if matches!(self.tree, Tree::Layer | Tree::Whole) && name.to_bytes().starts_with(b".wh.") {
            let name = String::from_utf8_lossy(path).into_owned();
            return Err(TarError::Unwritable { name, why: "its name would mean a deleted file" }.into());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(parent, name, path, depth),
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|errno| failed("read the link", path, errno))?;
                self.plain(EntryKind::Symlink, path, &stat, target.into_bytes())
            }
            FileType::CharacterDevice => self.plain(EntryKind::CharDevice, path, &stat, Vec::new()),
            FileType::BlockDevice => self.plain(EntryKind::BlockDevice, path, &stat, Vec::new()),
            FileType::Fifo => self.plain(EntryKind::Fifo, path, &stat, Vec::new()),
            _ => {
                tracing::debug!(path = %String::from_utf8_lossy(path), "a socket cannot be in an archive");
                Ok(())
            }
        }
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        path.push(b'/');
        let child = match self.open(parent, name, DIRECTORY) {
            Ok(child) => child,
            Err(Errno::XDEV) => {
                let point = Entry { kind: EntryKind::Directory, path: path.clone(), mode: 0o755, ..Entry::default() };
                return Ok(self.writer.start(&point)?);
            }
            Err(errno) => return Err(failed("open", path, errno)),
        };
        self.directory_entry(child.as_fd(), path)?;
        if self.tree == Tree::Layer && is_opaque(child.as_fd()) {
            let mark = [path, &b".wh..wh..opq"[..]].concat();
            self.writer.start(&Entry { path: mark, mode: 0o600, ..Entry::default() })?;
        }
        if self.is_ordinary(child.as_fd()).map_err(|errno| failed("stat", path, errno))? {
            self.children(child.as_fd(), path, depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        let file = match self.open(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(file) => file,
            Err(Errno::XDEV) => {
                return Ok(self.writer.start(&Entry { path: path.to_owned(), mode: 0o644, ..Entry::default() })?);
            }
            Err(errno) => return Err(failed("open", path, errno)),
        };
        // By now the name may be something else; what is held here is looked at before it is opened for reading.
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("stat", path, errno))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || !self.is_ordinary(file.as_fd()).map_err(|errno| failed("stat", path, errno))? {
            return Ok(());
        }
        if let Some(first) = self.first_name(&stat, path) {
            let link = Entry { link: first, ..entry(EntryKind::HardLink, path, &stat) };
            return Ok(self.writer.start(&link)?);
        }
        let readable = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = rustix::fs::open(readable, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed("open", path, errno))?;
        let mut entry = entry(EntryKind::File, path, &stat);
        entry.xattrs =
            xattrs(file.as_fd(), &mut self.buffer).map_err(|errno| failed("read the attributes of", path, errno))?;
        self.writer.start(&entry)?;
        self.data(&file, entry.size, path)
    }

    fn data(&mut self, file: &OwnedFd, size: u64, path: &[u8]) -> Result<()> {
        let mut rest = size;
        while rest > 0 {
            let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(self.buffer.len());
            match rustix::io::read(file, &mut self.buffer[..wanted]) {
                Ok(0) => {
                    let name = String::from_utf8_lossy(path).into_owned();
                    return Err(TarError::Unwritable { name, why: "it shrank while it was read" }.into());
                }
                Ok(length) => {
                    self.writer.data(&self.buffer[..length])?;
                    rest -= length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("read", path, errno)),
            }
        }
        Ok(())
    }

    fn plain(&mut self, kind: EntryKind, path: &[u8], stat: &Stat, link: Vec<u8>) -> Result<()> {
        if let Some(first) = self.first_name(stat, path) {
            let link = Entry { link: first, ..entry(EntryKind::HardLink, path, stat) };
            return Ok(self.writer.start(&link)?);
        }
        Ok(self.writer.start(&Entry { link, ..entry(kind, path, stat) })?)
    }

    /// The same bytes for the same deletion, whenever and by whomever: the mark's own owner and time mean nothing.
    pub(crate) fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let mark = [&path[..path.len() - name.len()], b".wh.", name].concat();
        Ok(self.writer.start(&Entry { path: mark, mode: 0o600, ..Entry::default() })?)
    }

    /// The name under which the same inode is in the archive already.
    fn first_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        match self.linked.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(path.to_owned());
                None
            }
        }
    }

    /// One component, never a link. In a bare tree `EXDEV` for what is mounted there.
    fn open(&self, parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        if self.tree == Tree::Bare {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
            return rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
        }
        rustix::fs::openat(parent, name, flags, Mode::empty())
    }

    /// Files of procfs and its like are not files of the container: reading them asks the host's kernel with our rights.
    fn is_ordinary(&mut self, fd: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
        if self.tree != Tree::Mounted {
            return Ok(true);
        }
        let device = rustix::fs::fstat(fd)?.st_dev;
        if self.ordinary_device == Some(device) {
            return Ok(true);
        }
        let is_ordinary = !is_kernel_magic(rustix::fs::fstatfs(fd)?.f_type);
        if is_ordinary {
            self.ordinary_device = Some(device);
        }
        Ok(is_ordinary)
    }
}

/// proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, selinuxfs, pstore, efivarfs, configfs, mqueue, nsfs
/// (statfs(2), linux/magic.h).
fn is_kernel_magic(magic: i64) -> bool {
    matches!(
        magic,
        0x9fa0
            | 0x6265_6572
            | 0x0027_e0eb
            | 0x6367_7270
            | 0x1cd1
            | 0x6462_6720
            | 0x7472_6163
            | 0x7363_6673
            | 0xcafe_4a11
            | 0xf97c_ff8c
            | 0x6165_676c
            | 0xde5e_81e4
            | 0x6265_6570
            | 0x1980_0202
            | 0x6e73_6673
    )
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
        .map_err(|errno| failed("open", path.as_os_str().as_bytes(), errno))
}

pub(crate) fn failed(operation: &'static str, path: &[u8], errno: Errno) -> ImageError {
    ImageError::Io { operation, object: String::from_utf8_lossy(path).into_owned(), source: errno.into() }
}

pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 4];
    rustix::fs::fgetxattr(directory, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

pub(crate) fn sorted_names(directory: BorrowedFd<'_>) -> std::result::Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn entry(kind: EntryKind, path: &[u8], stat: &Stat) -> Entry {
    let is_device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    Entry {
        kind,
        path: path.to_owned(),
        mode: stat.st_mode & 0o7777,
        uid: u64::from(stat.st_uid),
        gid: u64::from(stat.st_gid),
        mtime: Mtime { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        size: if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        device_major: if is_device { rustix::fs::major(stat.st_rdev) } else { 0 },
        device_minor: if is_device { rustix::fs::minor(stat.st_rdev) } else { 0 },
        ..Entry::default()
    }
}

/// Attributes that belong to the file, not to the overlay or the host. The buffer is for names and values.
pub(crate) fn xattrs(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> std::result::Result<Vec<Xattr>, Errno> {
    let (list, value) = buffer.split_at_mut(XATTR_SIZE_MAX);
    let length = match rustix::fs::flistxattr(fd, &mut *list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut xattrs = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| is_content(name)) {
        match rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut *value) {
            Ok(length) => xattrs.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() }),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

fn is_content(name: &[u8]) -> bool {
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}
