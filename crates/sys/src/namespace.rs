//! unshare(2) for the namespaces a process may leave without touching memory or descriptors it shares with others, and of which type one is.
#![expect(
    unsafe_code,
    reason = "rustix marks unshare unsafe because of CLONE_FILES, which is not passed on here, and has no ioctl_ns(2)"
)]

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Leaves namespaces; flags other than `CLONE_NEW*` are refused.
///
/// # Errors
/// `EINVAL` for other flags; the kernel's.
pub fn unshare_namespaces(flags: UnshareFlags) -> Result<(), Errno> {
    if flags.intersects(UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM) {
        return Err(Errno::INVAL);
    }
    // SAFETY: without CLONE_FILES, CLONE_FS and CLONE_SYSVSEM no state that safe code relies on (descriptors, cwd) is unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The `CLONE_NEW*` flag of the namespace behind a descriptor (Linux 4.11, ioctl_ns(2)).
///
/// # Errors
/// `ENOTTY` when it is no namespace.
pub fn namespace_type(fd: impl AsFd) -> Result<UnshareFlags, Errno> {
    // SAFETY: takes no argument and gives a number.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    u32::try_from(answer).map(UnshareFlags::from_bits_retain).map_err(|_| crate::clone::last_errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told() {
        let open = |path| std::fs::File::open(path).unwrap();
        assert_eq!(namespace_type(open("/proc/self/ns/net")).unwrap(), UnshareFlags::NEWNET);
        assert_eq!(namespace_type(open("/proc/self/ns/cgroup")).unwrap(), UnshareFlags::NEWCGROUP);
        assert_eq!(namespace_type(open("/proc/self/status")).unwrap_err(), Errno::NOTTY);
    }
}
