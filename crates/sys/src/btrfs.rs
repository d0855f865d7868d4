//! Subvolumes of btrfs (linux/btrfs.h, btrfs-ioctl(2)).
#![expect(unsafe_code, reason = "rustix has no btrfs ioctls")]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

const NAME_BYTES_MAX: usize = 255;
/// `BTRFS_IOC_SUBVOL_CREATE`, `BTRFS_IOC_SNAP_DESTROY`: `_IOW(0x94, 14 | 15, struct btrfs_ioctl_vol_args)`.
const SUBVOL_CREATE: libc::Ioctl = 0x5000_940e;
const SNAP_DESTROY: libc::Ioctl = 0x5000_940f;
/// `BTRFS_IOC_SNAP_CREATE`: `_IOW(0x94, 1, struct btrfs_ioctl_vol_args)`.
const SNAP_CREATE: libc::Ioctl = 0x5000_9401;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4088],
}

/// Makes an empty subvolume in a directory.
///
/// # Errors
/// `ENOTTY` where the directory is not on btrfs, `EEXIST`, `EPERM`.
pub fn create_subvolume(directory: impl AsFd, name: &CStr) -> Result<(), Errno> {
    call(&directory, SUBVOL_CREATE, 0, name)
}

/// Makes a writable snapshot of the subvolume whose root `source` is.
///
/// # Errors
/// `ENOTTY` where the directory is not on btrfs, `EINVAL` where the source is no subvolume, `EXDEV` for one of another file system.
pub fn snapshot(directory: impl AsFd, name: &CStr, source: impl AsFd) -> Result<(), Errno> {
    call(&directory, SNAP_CREATE, i64::from(source.as_fd().as_raw_fd()), name)
}

/// Removes a subvolume with all that is in it.
///
/// # Errors
/// `ENOTTY` where the directory is not on btrfs, `EINVAL` for what is no subvolume, `ENOTEMPTY` where it has subvolumes of its own.
pub fn destroy(directory: impl AsFd, name: &CStr) -> Result<(), Errno> {
    call(&directory, SNAP_DESTROY, 0, name)
}

fn call(directory: &impl AsFd, request: libc::Ioctl, fd: i64, name: &CStr) -> Result<(), Errno> {
    let name = name.to_bytes();
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let mut arguments = VolumeArguments { fd, name: [0; 4088] };
    arguments.name[..name.len()].copy_from_slice(name);
    // SAFETY: the descriptor is borrowed and so open for the whole call; `arguments` has the layout and size (4096, part of the request number)
    // of `struct btrfs_ioctl_vol_args`, its name ends with a NUL, and the kernel only reads it.
    let result = unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), request, &raw const arguments) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
