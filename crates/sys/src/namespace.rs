//! unshare(2) for the namespaces a process may leave without touching memory or descriptors it shares with others.
#![expect(unsafe_code, reason = "rustix marks unshare unsafe because of CLONE_FILES, which is not passed on here")]

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
