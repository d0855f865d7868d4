//! Owner, mode, extended attributes and time of what was extracted, in the order in which none undoes another.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::parents::{Owner, Parents, timespec};
use super::{ExtractError, Extracted, Placement};
use crate::tar_stream::{Entry, Xattr};
use crate::{ImageError, Result};

/// Default ACLs of one archive and their paths, which wait in memory until everything is extracted.
const LATE_BYTES_MAX: usize = 8 << 20;
const SPECIAL_BITS: u32 = 0o7000;
const ACL_DEFAULT: &str = "system.posix_acl_default";

#[derive(Debug)]
pub(super) struct Attributes {
    /// Bits that the process's mask takes from what is created. All of them where that is not all that decides.
    masked: u32,
    /// What is there already may have attributes the archive does not give.
    is_merge: bool,
    /// Default ACLs: set at once they would change what is made in their directory next.
    late: Vec<(Vec<u8>, Vec<u8>)>,
    late_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum XattrRule {
    Keep,
    Late,
    Drop,
}

/// What an archive may set. Not `trusted.*` and `user.overlay.*`, which an overlay obeys, and not labels and hashes of the host's security modules.
fn rule(name: &[u8]) -> XattrRule {
    match name {
        b"security.capability" | b"system.posix_acl_access" => XattrRule::Keep,
        b"system.posix_acl_default" => XattrRule::Late,
        _ if name.starts_with(b"user.overlay.") => XattrRule::Drop,
        _ if name.starts_with(b"user.") => XattrRule::Keep,
        _ => XattrRule::Drop,
    }
}

pub(super) fn keeps(name: &[u8]) -> bool {
    rule(name) != XattrRule::Drop
}

impl Attributes {
    /// In an own, empty directory the process's mask alone decides about modes; elsewhere a default ACL may.
    pub(super) fn new(mode: Placement) -> Self {
        let masked = if mode == Placement::Layer { process_mask().unwrap_or(0o777) } else { 0o777 };
        Self { masked, is_merge: mode == Placement::Merge, late: Vec::new(), late_bytes: 0 }
    }

    pub(super) fn creation_mode(&self, mode: u32) -> Mode {
        Mode::from_raw_mode(mode & 0o777)
    }

    pub(super) fn set_on_file(&self, file: &OwnedFd, entry: &Entry, owner: Extracted<Owner>) -> Extracted<()> {
        let owner = owner?;
        if self.is_merge {
            remove_acl(file.as_fd(), "system.posix_acl_access")?;
        }
        self.set_owner_and_mode(file, entry, owner)?;
        for xattr in entry.xattrs.iter().filter(|xattr| rule(&xattr.name) == XattrRule::Keep) {
            set_xattr(file, xattr)?;
        }
        set_time(rustix::fs::futimens(file, &times(entry)))
    }

    pub(super) fn set_on_directory(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
        owner: Owner,
    ) -> Extracted<()> {
        if self.is_merge {
            clear_xattrs(directory)?;
        }
        // It may have existed with another owner and mode.
        rustix::fs::fchown(directory, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(ExtractError::kernel("set the owner"))?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(entry.mode)).map_err(ExtractError::kernel("set the mode"))?;
        for xattr in &entry.xattrs {
            match rule(&xattr.name) {
                XattrRule::Keep => set_xattr(directory, xattr)?,
                XattrRule::Late => {
                    self.late_bytes += size_of::<(Vec<u8>, Vec<u8>)>() + path.len() + xattr.value.len();
                    if self.late_bytes > LATE_BYTES_MAX {
                        return Err(ExtractError::Refused("too many default ACLs"));
                    }
                    self.late.push((path.to_owned(), xattr.value.clone()));
                }
                XattrRule::Drop => {}
            }
        }
        Ok(())
    }

    pub(super) fn set_on_link(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        owner: Owner,
    ) -> Extracted<()> {
        let link = open_made(directory, name, FileType::Symlink)?;
        set_owner(&link, owner)?;
        set_time(rustix::fs::utimensat(&link, "", &times(entry), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW))
    }

    pub(super) fn set_on_node(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        entry: &Entry,
        owner: Owner,
    ) -> Extracted<()> {
        let node = open_made(directory, name, kind)?;
        set_owner(&node, owner)?;
        // The one way to change the mode of just this inode without opening the device.
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(ExtractError::kernel("set the mode"))?;
        set_time(rustix::fs::utimensat(&node, "", &times(entry), AtFlags::EMPTY_PATH))
    }

    /// Sets what had to wait.
    pub(super) fn finish(self, parents: &Parents<'_>) -> Result<()> {
        for (path, value) in self.late {
            match parents.set_late(&path, ACL_DEFAULT, &value) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(source) => {
                    let entry = String::from_utf8_lossy(&path).into_owned();
                    return Err(ImageError::Extract { entry, source: ExtractError::kernel("set an ACL")(source) });
                }
            }
        }
        Ok(())
    }

    /// A change of owner clears the set-id bits, so the mode comes second.
    fn set_owner_and_mode(&self, file: &OwnedFd, entry: &Entry, owner: Owner) -> Extracted<()> {
        if owner != (Owner { uid: 0, gid: 0 }) || self.masked == 0o777 {
            set_owner(file, owner)?;
        }
        if entry.mode & (SPECIAL_BITS | self.masked) != 0 || self.masked == 0o777 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(ExtractError::kernel("set the mode"))?;
        }
        Ok(())
    }
}

/// Opens what was just made, not following and not opening a device; somebody may have exchanged it for another kind of thing.
fn open_made(directory: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> Extracted<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(ExtractError::kernel("open it again"))?;
    let stat = rustix::fs::fstat(&fd).map_err(ExtractError::kernel("stat it"))?;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(ExtractError::Refused("somebody exchanged it meanwhile"));
    }
    Ok(fd)
}

fn set_owner(fd: &OwnedFd, owner: Owner) -> Extracted<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
        .map_err(ExtractError::kernel("set the owner"))
}

/// Inherited from a default ACL of its directory.
fn remove_acl(fd: BorrowedFd<'_>, name: &str) -> Extracted<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(source) => Err(ExtractError::Kernel { operation: "remove an inherited ACL", source }),
    }
}

/// What an archive may set it also takes away by not having it.
fn clear_xattrs(directory: BorrowedFd<'_>) -> Extracted<()> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(directory, &mut list).unwrap_or(0);
    for name in list[..length].split(|byte| *byte == 0).filter(|name| rule(name) != XattrRule::Drop) {
        match rustix::fs::fremovexattr(directory, OsStr::from_bytes(name)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(source) => return Err(ExtractError::Kernel { operation: "remove an extended attribute", source }),
        }
    }
    Ok(())
}

fn set_xattr(fd: impl std::os::fd::AsFd, xattr: &Xattr) -> Extracted<()> {
    match rustix::fs::fsetxattr(fd, OsStr::from_bytes(&xattr.name), &xattr.value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => {
            tracing::debug!(name = %String::from_utf8_lossy(&xattr.name), "file system stores no such attribute");
            Ok(())
        }
        Err(source) => Err(ExtractError::Kernel { operation: "set an extended attribute", source }),
    }
}

/// A time that the file system cannot store is no reason to fail.
fn set_time(result: std::result::Result<(), Errno>) -> Extracted<()> {
    match result {
        Err(Errno::INVAL) => Ok(()),
        other => other.map_err(ExtractError::kernel("set the time")),
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = timespec(entry.mtime);
    Timestamps { last_access: time, last_modification: time }
}

/// The mask as the kernel tells it; setting it to read it would change it for other threads.
fn process_mask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}
