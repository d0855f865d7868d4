//! Descriptors that the process that started us meant us to have (sd_listen_fds(3)).

#![expect(unsafe_code, reason = "owning a descriptor by its inherited number")]

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};

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

/// Lends the descriptor of a number that is somebody else's (of a process with which this one shares its table).
///
/// # Errors
/// `EBADF` when nothing is open there.
pub fn with_borrowed<T>(number: i32, use_it: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T, Errno> {
    // SAFETY: F_GETFD takes any number and touches no memory.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is open (just checked) and not -1; its owner keeps it open until it is told that it was used, which is the
    // contract of this function; nothing here closes it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(use_it(borrowed))
}
