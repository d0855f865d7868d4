//! Device nodes below a root, and the host's `/dev/null` as a mount source that is checked to be one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::mounts::{MountError, TargetKind, attach, clone_tree, mount_target};
use crate::root_dir::{RootDir, RootError};

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    pub path: std::path::PathBuf,
    pub kind: FileType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Whether something else of that name gives way (the devices every container has); otherwise it is an error.
    pub replaces: bool,
}

/// Makes the node; one that is already there must be the same device, see [`DeviceNode::replaces`].
///
/// # Errors
/// `AlreadyExists` for something else of that name; the kernel's, with the path.
pub fn make_node(root: &RootDir, node: &DeviceNode) -> Result<(), MountError> {
    let error = |operation| move |source| MountError::Root(RootError { operation, path: node.path.clone(), source });
    root.create_dir_all(node.path.parent().unwrap_or(Path::new("")), Mode::from_raw_mode(0o755))?;
    let (parent, name) = root.parent(&node.path)?;
    let device = rustix::fs::makedev(node.major, node.minor);
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    match rustix::fs::mknodat(&parent, name, node.kind, mode, device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            if is_same(&parent, name, node, device) {
                return Ok(());
            }
            if !node.replaces {
                return Err(error("make device over something else at")(Errno::EXIST));
            }
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(error("replace"))?;
            rustix::fs::mknodat(&parent, name, node.kind, mode, device).map_err(error("make device"))?;
        }
        Err(errno) => return Err(error("make device")(errno)),
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(error("give away device"))?;
    }
    Ok(())
}

fn is_same(parent: &OwnedFd, name: &std::ffi::OsStr, node: &DeviceNode, device: u64) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == node.kind && stat.st_rdev == device)
}

/// For a user namespace, where mknod is forbidden: the host's node of that path, checked to be that device, bound into the root.
///
/// # Errors
/// `EINVAL` when the host's node is another device.
pub fn bind_node(root: &RootDir, node: &DeviceNode) -> Result<(), MountError> {
    let error = |what| move |source| MountError::Kernel { what, object: node.path.clone(), source };
    let mount = clone_tree(&node.path, false)?;
    let stat = rustix::fs::statat(&mount, "", AtFlags::EMPTY_PATH).map_err(error("stat the host's"))?;
    let device = rustix::fs::makedev(node.major, node.minor);
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != device {
        return Err(error("find the right device at the host's")(Errno::INVAL));
    }
    let target = mount_target(root, &node.path, TargetKind::File)?;
    attach(mount.as_fd(), target.as_fd()).map_err(error("bind"))
}

/// A detached copy of the host's `/dev/null`, checked to be character device 1:3 (CVE-2025-31133).
///
/// # Errors
/// `EINVAL` when it is something else.
pub fn null_mount() -> Result<OwnedFd, MountError> {
    let error = |source| MountError::Kernel { what: "verify", object: "/dev/null".into(), source };
    let mount = clone_tree(Path::new("/dev/null"), false)?;
    if is_null(mount.as_fd()).map_err(error)? { Ok(mount) } else { Err(error(Errno::INVAL)) }
}

/// Whether a descriptor is on character device 1:3.
///
/// # Errors
/// The kernel's.
pub fn is_null(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// Makes a link, replacing what is there unless it is the same link. Directories are not replaced.
///
/// # Errors
/// The kernel's, with the path.
pub fn make_link(root: &RootDir, path: &Path, to: &str, replace: bool) -> Result<(), MountError> {
    let error = |source| MountError::Root(RootError { operation: "link", path: path.to_owned(), source });
    let (parent, name) = root.parent(path)?;
    match rustix::fs::symlinkat(to, &parent, name) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if !replace => Ok(()),
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(error)?;
            rustix::fs::symlinkat(to, &parent, name).map_err(error)
        }
        Err(errno) => Err(error(errno)),
    }
}

/// Opens the pseudo-terminal multiplexer of a devpts and checks that it is one (5:2 on devpts; CVE-2025-52565).
///
/// # Errors
/// `ENOTTY` when it is something else.
pub fn open_multiplexer(devpts: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = rustix::fs::openat2(devpts, "ptmx", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let stat = rustix::fs::statat(&path, "", AtFlags::EMPTY_PATH)?;
    let is_multiplexer = stat.st_rdev == rustix::fs::makedev(5, 2)
        && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && crate::mounts::magic(&path)? == crate::mounts::DEVPTS_MAGIC;
    if !is_multiplexer {
        return Err(Errno::NOTTY);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(devpts, "ptmx", flags, Mode::empty(), resolve)
}
