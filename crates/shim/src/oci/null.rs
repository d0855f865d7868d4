//! A null device of our own for other runtimes: gVisor gives the streams it gets to `nobody`, and the host's `/dev/null` with them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev, mknodat, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Major and minor number (null(4)).
const NULL: (u32, u32) = (1, 3);

/// Open for both directions, on a file system that nobody else sees and that goes with the last descriptor.
///
/// # Errors
/// The kernel's; making nodes and mounts takes root.
pub(super) fn private_null() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(&root, "null", FileType::CharacterDevice, mode, makedev(NULL.0, NULL.1))?;
    openat(&root, "null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// The stream, or a null device of our own in place of the host's.
pub(super) fn not_the_hosts(stream: OwnedFd) -> Result<OwnedFd, Errno> {
    let stat = fstat(stream.as_fd())?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(NULL.0, NULL.1);
    if is_null { private_null() } else { Ok(stream) }
}
