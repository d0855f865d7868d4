//! mount_setattr(2): changing the attributes of a mount, and mapping its owners.
#![expect(unsafe_code, reason = "rustix has no mount_setattr(2)")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// What to change on a mount.
#[derive(Debug, Clone, Copy)]
pub struct MountAttr<'fd> {
    pub set: MountAttrFlags,
    pub clear: MountAttrFlags,
    /// At most one of shared, downstream (slave), private, unbindable.
    pub propagation: MountPropagationFlags,
    /// Map owners as in this user namespace. Only for a mount that was never attached (Linux 5.12).
    pub id_map: Option<BorrowedFd<'fd>>,
}

impl Default for MountAttr<'_> {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: MountPropagationFlags::empty(),
            id_map: None,
        }
    }
}

/// Changes the mount whose root `mount` is, and with `is_recursive` all mounts below it (Linux 5.12).
///
/// # Errors
/// `EINVAL` where the descriptor is not a mount's root or the file system cannot be id-mapped, `EPERM` without CAP_SYS_ADMIN over it,
/// `ENOSYS` before Linux 5.12.
pub fn mount_setattr(mount: BorrowedFd<'_>, is_recursive: bool, attr: &MountAttr<'_>) -> Result<(), Errno> {
    let recursive = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    let mut raw = libc::mount_attr {
        attr_set: u64::from(attr.set.bits()),
        attr_clr: u64::from(attr.clear.bits()),
        propagation: u64::from(attr.propagation.bits()),
        userns_fd: 0,
    };
    if let Some(user_ns) = attr.id_map {
        raw.attr_set |= libc::MOUNT_ATTR_IDMAP;
        raw.userns_fd = u64::try_from(user_ns.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: the descriptors are borrowed and so open for the whole call; the path is an empty C string constant; `raw` lives on this stack,
    // has the layout of `struct mount_attr` and its exact size is passed; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
