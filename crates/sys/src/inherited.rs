//! Descriptors that the process that started us meant us to have (sd_listen_fds(3)).

#![expect(unsafe_code, reason = "owning a descriptor by its inherited number")]

use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::io::Errno;

/// First descriptor of socket activation.
const FIRST: i32 = 3;

/// Takes the first passed descriptor and sets it close-on-exec. Call it once, before anything else opens descriptors.
///
/// # Errors
/// `EBADF` when nothing is open there.
pub fn take_first_passed() -> Result<OwnedFd, Errno> {
    // SAFETY: `fcntl(F_SETFD)` takes any number and fails with EBADF when no descriptor is open there; no memory is involved.
    let set = unsafe { libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC) };
    if set == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF));
    }
    // SAFETY: the number is open (fcntl succeeded), was passed to this process for it to own, and the contract of this
    // function (called once, first) makes this the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(FIRST) })
}
