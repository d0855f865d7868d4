//! Putting archive entries into a directory tree, where neither the archive nor the tree is trusted.
//!
//! Invariants:
//! - Every entry is made in a parent held open, found by the kernel inside the root (`openat2`, in-root): links in the way, whoever put them
//!   there and whenever, never lead out.
//! - Nothing that exists is opened for writing, and no last component is followed: what is in the way is removed first, then made anew. So
//!   an entry cannot write through a link, a hard link, a device or a file of procfs.
//! - Attributes that mean something to the overlay or to the host's security modules are never taken from an archive, nor is the device number
//!   that means "deleted".
//!
//! Names are cleaned as text first (`a/./b`, `/a`); one that climbs out by `..` is refused.

mod attributes;
mod merge;
mod parents;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_rootfs::{RootDir, RootError, remove_tree};
use berth_types::{Classify, ErrorClass};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::tar_stream::{Entry, EntryKind, TarReader};
use crate::{ImageError, Result};
use attributes::Attributes;
use parents::{Owner, Parents};

/// Levels of directories in an archive; deleting and packing have the same limit.
pub(crate) const DEPTH_MAX: usize = 250;
/// Names of a merged layer that are remembered, those of directories above them included: 20 MiB.
const OWN_MAX: usize = 1_800_000;
/// Of one archive.
pub(crate) const ENTRIES_MAX: usize = 2_000_000;
/// What Linux takes for a path.
const PATH_LENGTH_MAX: usize = 4095;
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Why one entry cannot be extracted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    #[error("{0}")]
    Refused(&'static str),
    #[error("cannot {operation}")]
    Kernel { operation: &'static str, source: Errno },
    #[error("its directory cannot be opened")]
    Parent(#[from] RootError),
}

impl ExtractError {
    fn kernel(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self::Kernel { operation, source }
    }
}

impl Classify for ExtractError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(_) => ErrorClass::InvalidArgument,
            Self::Parent(error) => error.class(),
            Self::Kernel { source, .. } => match *source {
                Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NOMEM => ErrorClass::ResourceExhausted,
                Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorClass::PermissionDenied,
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::ISDIR | Errno::FBIG => {
                    ErrorClass::InvalidArgument
                }
                Errno::BUSY => ErrorClass::FailedPrecondition,
                _ => ErrorClass::Internal,
            },
        }
    }
}

pub(crate) type Extracted<T> = std::result::Result<T, ExtractError>;

/// How entries meet what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// An empty layer directory: whiteouts become overlay marks, a replaced thing hides what is below it.
    Layer,
    /// A copy of the layers below: whiteouts delete from it.
    Merge,
    /// A living root: names are only names.
    Copy { refuses_dir_non_dir: bool, keeps_owners: bool },
}

/// Extracts the entries of one archive.
#[derive(Debug)]
pub(crate) struct Extractor<'r> {
    parents: Parents<'r>,
    attributes: Attributes,
    mode: Placement,
    size_bytes: u64,
    /// What a merged layer has itself (hashes of paths): its whiteouts do not mean that.
    own: HashSet<u64>,
}

impl<'r> Extractor<'r> {
    /// `base` is a directory of the root that must exist; `lowers` tell what directories look like that the archive does not mention.
    pub(crate) fn new(root: &'r RootDir, base: &Path, lowers: &'r [RootDir], mode: Placement) -> Self {
        let is_layer = matches!(mode, Placement::Layer | Placement::Merge);
        Self {
            parents: Parents::new(root, base.as_os_str().as_bytes().to_vec(), lowers, is_layer),
            attributes: Attributes::new(mode),
            mode,
            size_bytes: 0,
            own: HashSet::new(),
        }
    }

    /// Extracts everything. Returns the sum of the sizes of regular files.
    pub(crate) fn extract(mut self, reader: &mut TarReader<'_>) -> Result<u64> {
        let mut path = Vec::new();
        let mut entries = 0;
        while reader.next_entry()? {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(refused(reader.entry(), "the layer has too many entries"));
            }
            self.extract_entry(reader, &mut path)?;
        }
        self.parents.close_all();
        self.attributes.finish(&self.parents)?;
        Ok(self.size_bytes)
    }

    fn extract_entry(&mut self, reader: &mut TarReader<'_>, path: &mut Vec<u8>) -> Result<()> {
        let placed = match clean(&reader.entry().path, path) {
            Ok(()) => self.place(reader.entry(), path),
            Err(error) => Err(error),
        };
        let named = |entry: &Entry| String::from_utf8_lossy(&entry.path).chars().take(200).collect::<String>();
        match placed {
            Ok(None) => Ok(()),
            Ok(Some(file)) => {
                self.size_bytes = self.size_bytes.saturating_add(reader.entry().size);
                write_data(reader, &file)?;
                self.attributes
                    .set_on_file(&file, reader.entry(), self.owner(reader.entry()))
                    .map_err(|source| ImageError::Extract { entry: named(reader.entry()), source })
            }
            Err(source) => Err(ImageError::Extract { entry: named(reader.entry()), source }),
        }
    }

    /// Makes the entry; a regular file comes back opened, to be filled.
    fn place(&mut self, entry: &Entry, path: &[u8]) -> Extracted<Option<OwnedFd>> {
        let Some((parent, name)) = split(path) else { return self.place_root(entry) };
        match self.mode {
            Placement::Layer if name.starts_with(b".wh.") => {
                return self.place_whiteout(parent, name, entry).map(|()| None);
            }
            Placement::Merge if name.starts_with(b".wh.") => {
                return self.merge_whiteout(parent, name, entry).map(|()| None);
            }
            Placement::Merge if self.own.len() > OWN_MAX => {
                return Err(ExtractError::Refused("the layer has too many names"));
            }
            Placement::Merge => merge::note(&mut self.own, path),
            Placement::Layer | Placement::Copy { .. } => {}
        }
        let name = OsStr::from_bytes(name);
        match entry.kind {
            EntryKind::File => return self.place_file(entry, parent, name).map(Some),
            EntryKind::Directory => self.place_directory(entry, path, parent, name)?,
            EntryKind::HardLink => self.place_hard_link(entry, parent, name)?,
            EntryKind::Symlink => self.place_symlink(entry, parent, name)?,
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => self.place_node(entry, parent, name)?,
        }
        Ok(None)
    }

    /// An entry for the directory itself: its metadata in a layer, nothing in a copy. Anything else in its place is refused (CVE-2021-29136).
    fn place_root(&mut self, entry: &Entry) -> Extracted<Option<OwnedFd>> {
        if entry.kind != EntryKind::Directory {
            return Err(ExtractError::Refused("the root of an archive must be a directory"));
        }
        if self.mode == Placement::Layer || self.mode == Placement::Merge {
            let owner = self.owner(entry)?;
            let directory = self.parents.get(b"", entry)?;
            self.attributes.set_on_directory(directory, b"", entry, owner)?;
            self.parents.set_mtime(b"", entry.mtime);
        }
        Ok(None)
    }

    fn place_file(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Extracted<OwnedFd> {
        let mode = self.attributes.creation_mode(entry.mode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make(entry, parent, name, "create the file", |directory| rustix::fs::openat(directory, name, flags, mode))
            .map(|(file, _)| file)
    }

    fn place_directory(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &OsStr) -> Extracted<()> {
        let owner = self.owner(entry)?;
        let mode = self.attributes.creation_mode(entry.mode);
        let directory = self.parents.get(parent, entry)?;
        let mut hides_lower = false;
        match rustix::fs::mkdirat(directory, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_directory(directory, name) => {}
            Err(Errno::EXIST) => {
                self.make(entry, parent, name, "create the directory", |directory| {
                    rustix::fs::mkdirat(directory, name, mode)
                })?;
                hides_lower = self.mode == Placement::Layer;
            }
            Err(source) => return Err(ExtractError::Kernel { operation: "create the directory", source }),
        }
        let directory = self.parents.enter(parent, name, path, entry)?;
        if hides_lower {
            set_opaque(directory)?;
        }
        self.attributes.set_on_directory(directory, path, entry, owner)?;
        self.parents.set_mtime(path, entry.mtime);
        Ok(())
    }

    fn place_symlink(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Extracted<()> {
        if entry.link.is_empty() || entry.link.len() > PATH_LENGTH_MAX {
            return Err(ExtractError::Refused("a link whose target is empty or too long"));
        }
        let owner = self.owner(entry)?;
        let target = OsStr::from_bytes(&entry.link);
        let make = |directory: BorrowedFd<'_>| rustix::fs::symlinkat(target, directory, name);
        self.make(entry, parent, name, "create the link", make)?;
        let directory = self.parents.get(parent, entry)?;
        self.attributes.set_on_link(directory, name, entry, owner)
    }

    /// The target's last component is not followed, and must not be a mark of the overlay.
    fn place_hard_link(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Extracted<()> {
        let mut target = Vec::new();
        clean(&entry.link, &mut target)?;
        let (target_parent, target_name) = split(&target).ok_or(ExtractError::Refused("a hard link to a directory"))?;
        let target_name = OsStr::from_bytes(target_name);
        let source = self.parents.get_existing(target_parent)?;
        let source =
            rustix::io::fcntl_dupfd_cloexec(source, 3).map_err(ExtractError::kernel("open the link's target"))?;
        let stat = stat(source.as_fd(), target_name).map_err(ExtractError::kernel("find the link's target"))?;
        if is_whiteout(&stat) {
            return Err(ExtractError::Refused("a hard link to a deleted file"));
        }
        if parent == target_parent && name == target_name {
            return Ok(());
        }
        let make =
            |directory: BorrowedFd<'_>| rustix::fs::linkat(&source, target_name, directory, name, AtFlags::empty());
        self.make(entry, parent, name, "create the hard link", make).map(|_| ())
    }

    fn place_node(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Extracted<()> {
        let (kind, device) = match entry.kind {
            EntryKind::CharDevice if (entry.device_major, entry.device_minor) == (0, 0) => {
                return Err(ExtractError::Refused(
                    "character device 0/0 means deleted; an archive must not contain it",
                ));
            }
            EntryKind::CharDevice => {
                (FileType::CharacterDevice, rustix::fs::makedev(entry.device_major, entry.device_minor))
            }
            EntryKind::BlockDevice => {
                (FileType::BlockDevice, rustix::fs::makedev(entry.device_major, entry.device_minor))
            }
            _ => (FileType::Fifo, 0),
        };
        let owner = self.owner(entry)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let make = |directory: BorrowedFd<'_>| rustix::fs::mknodat(directory, name, kind, mode, device);
        self.make(entry, parent, name, "create the device or fifo", make)?;
        let directory = self.parents.get(parent, entry)?;
        self.attributes.set_on_node(directory, name, kind, entry, owner)
    }

    /// OCI whiteouts (image-spec, "Layer Filesystem Changeset") as the overlay writes them. They hide what lower layers have, never what this
    /// layer has, in whatever order the two come.
    fn place_whiteout(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Extracted<()> {
        let hidden = &name[b".wh.".len()..];
        if name == b".wh..wh..opq" {
            return set_opaque(self.parents.get(parent, entry)?);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of an old driver (aufs); it was never content.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ExtractError::Refused("a whiteout of nothing"));
        }
        let hidden = OsStr::from_bytes(hidden);
        let directory = self.parents.get(parent, entry)?;
        match rustix::fs::mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(directory, hidden, flags, Mode::empty()) {
                    Ok(directory) => set_opaque(directory.as_fd()),
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(source) => Err(ExtractError::Kernel { operation: "open the directory", source }),
                }
            }
            Err(source) => Err(ExtractError::Kernel { operation: "create the whiteout", source }),
        }
    }

    /// Makes something under a name; what is there is removed first. Tells whether something was.
    fn make<T>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &OsStr,
        operation: &'static str,
        make: impl Fn(BorrowedFd<'_>) -> std::result::Result<T, Errno>,
    ) -> Extracted<(T, bool)> {
        match make(self.parents.get(parent, entry)?) {
            Ok(made) => return Ok((made, false)),
            Err(Errno::EXIST) => {}
            Err(source) => return Err(ExtractError::Kernel { operation, source }),
        }
        self.clear_way(entry, parent, name)?;
        let made = make(self.parents.get(parent, entry)?).map_err(ExtractError::kernel(operation))?;
        Ok((made, true))
    }

    fn clear_way(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Extracted<()> {
        let directory = self.parents.get(parent, entry)?;
        let is_directory = is_directory(directory, name);
        if let Placement::Copy { refuses_dir_non_dir: true, .. } = self.mode
            && is_directory != (entry.kind == EntryKind::Directory)
        {
            return Err(ExtractError::Refused("it would exchange a directory for something else, or the reverse"));
        }
        remove_tree(directory, name, None)?;
        // Opened directories may have been reached through what is gone.
        self.parents.close_all();
        Ok(())
    }

    /// Ids over 2^31-1 wrap in programs that take them for signed (CVE-2024-40635).
    fn owner(&self, entry: &Entry) -> Extracted<Owner> {
        if let Placement::Copy { keeps_owners: false, .. } = self.mode {
            return Ok(Owner { uid: 0, gid: 0 });
        }
        let id = |id: u64| match u32::try_from(id) {
            Ok(id) if i32::try_from(id).is_ok() => Ok(id),
            _ => Err(ExtractError::Refused("an owner over 2147483647")),
        };
        Ok(Owner { uid: id(entry.uid)?, gid: id(entry.gid)? })
    }
}

fn refused(entry: &Entry, why: &'static str) -> ImageError {
    let entry = String::from_utf8_lossy(&entry.path).chars().take(200).collect();
    ImageError::Extract { entry, source: ExtractError::Refused(why) }
}

fn write_data(reader: &mut TarReader<'_>, file: &OwnedFd) -> Result<()> {
    let size = reader.entry().size;
    let mut end = 0;
    while let Some((mut offset, mut piece)) = reader.next_piece()? {
        while !piece.is_empty() {
            match rustix::io::pwrite(file, piece, offset) {
                Ok(written) => {
                    offset += written as u64;
                    piece = &piece[written..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(write_failed(reader, errno)),
            }
        }
        end = offset;
    }
    if end < size {
        rustix::fs::ftruncate(file, size).map_err(|errno| write_failed(reader, errno))?;
    }
    Ok(())
}

fn write_failed(reader: &TarReader<'_>, source: Errno) -> ImageError {
    let entry = String::from_utf8_lossy(&reader.entry().path).into_owned();
    ImageError::Extract { entry, source: ExtractError::Kernel { operation: "write the file", source } }
}

fn set_opaque(directory: BorrowedFd<'_>) -> Extracted<()> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
        .map_err(ExtractError::kernel("mark the directory as opaque"))
}

fn stat(directory: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_directory(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    stat(directory, name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The overlay's mark for a deleted name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// As every entry's name is cleaned before it is placed.
pub(crate) fn clean_name(name: &[u8], path: &mut Vec<u8>) -> Extracted<()> {
    clean(name, path)
}

/// Whether an archive may set this attribute on a file of a layer.
pub(crate) fn keeps_xattr(name: &[u8]) -> bool {
    attributes::keeps(name)
}

/// Cleans a name as text: no empty, `.` or `..` component stays. Empty for the root itself.
fn clean(name: &[u8], path: &mut Vec<u8>) -> Extracted<()> {
    path.clear();
    if name.contains(&0) {
        return Err(ExtractError::Refused("a name with a NUL"));
    }
    let mut depth = 0;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if depth == 0 {
                    return Err(ExtractError::Refused("a name that leads out of the root"));
                }
                depth -= 1;
                path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            }
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
                depth += 1;
            }
        }
    }
    if path.len() > PATH_LENGTH_MAX || depth > DEPTH_MAX {
        return Err(ExtractError::Refused("a name that is too long or too deep"));
    }
    Ok(())
}

/// Parent and last component of a clean path; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}
