//! A directory tree into an EROFS image, with everything that belongs to it. The tree is a layer that nobody changes meanwhile.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::{ErofsWriter, ImageMemory, ImageMemoryError, NodeAttributes, NodeId, NodeKind};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const XATTR_BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 256;
/// Of one directory: more would not fit into an image's memory anyway.
const NAMES_MAX: usize = 200_000;

/// Writes the image of `tree` into `file`.
///
/// # Errors
/// What the kernel says; as [`ErofsWriter::check_memory`].
pub(crate) fn pack(tree: &Path, file: File) -> io::Result<u64> {
    let mut packer = Packer {
        image: ErofsWriter::new(file, &ImageMemory::default())?,
        linked: HashMap::new(),
        buffer: vec![0; 256 << 10],
    };
    let directory = rustix::fs::open(tree, DIRECTORY, Mode::empty())?;
    let root = packer.image.root();
    packer.directory(&directory, root, 0)?;
    packer.image.finish()
}

struct Packer {
    image: ErofsWriter,
    linked: HashMap<u64, NodeId>,
    buffer: Vec<u8>,
}

impl Packer {
    fn directory(&mut self, directory: &OwnedFd, node: NodeId, depth: usize) -> io::Result<()> {
        if depth == DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let stat = rustix::fs::fstat(directory)?;
        let attributes = attributes(&stat, xattrs(directory.as_fd())?);
        self.image.set_attributes(node, attributes);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
            if names.len() > NAMES_MAX {
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, ImageMemoryError));
            }
        }
        names.sort();
        for name in names {
            self.entry(directory.as_fd(), &name, node, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr, to: NodeId, depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.image.check_memory()?;
        let bytes = name.to_bytes();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let child = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
                let node = self.image.add(to, bytes, NodeKind::Directory, NodeAttributes::default(), 0);
                return self.directory(&child, node, depth + 1);
            }
            FileType::RegularFile => NodeKind::File,
            FileType::Symlink => NodeKind::Symlink,
            FileType::CharacterDevice => NodeKind::CharDevice,
            FileType::BlockDevice => NodeKind::BlockDevice,
            FileType::Fifo => NodeKind::Fifo,
            _ => NodeKind::Socket,
        };
        if let Some(first) = self.linked.get(&stat.st_ino).copied() {
            self.image.add_name(to, bytes, first);
            return Ok(());
        }
        let node = match kind {
            NodeKind::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                self.image.add_link(to, bytes, target.as_bytes(), attributes(&stat, Vec::new()))
            }
            NodeKind::File => self.file(parent, name, to, &stat)?,
            _ => self.image.add(to, bytes, kind, attributes(&stat, Vec::new()), stat.st_rdev),
        };
        if stat.st_nlink > 1 {
            self.linked.insert(stat.st_ino, node);
        }
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr, to: NodeId, stat: &Stat) -> io::Result<NodeId> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let attributes = attributes(stat, xattrs(file.as_fd())?);
        let node = self.image.add(to, name.to_bytes(), NodeKind::File, attributes, 0);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.image.begin_data(node, size)?;
        let file = File::from(file);
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
            at = start;
            while at < end {
                let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let length = file.read_at(&mut self.buffer[..wanted], at)?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.image.data(at, &self.buffer[..length])?;
                at += length as u64;
            }
        }
        self.image.end_data()?;
        Ok(node)
    }
}

fn attributes(stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> NodeAttributes {
    NodeAttributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_seconds: stat.st_mtime,
        mtime_nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        xattrs,
    }
}

fn xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(fd, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        value.resize(XATTR_BYTES_MAX, 0);
        let length = rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut value)?;
        found.push((name.to_vec(), value[..length].to_vec()));
    }
    Ok(found)
}
