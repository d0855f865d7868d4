//! Pseudo-terminals by descriptor: the slave comes from its master (`TIOCGPTPEER`), never from a path.
#![expect(unsafe_code, reason = "rustix is built without its pty feature")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::clone::last_errno;

/// Unlocks the slave of a master just opened.
///
/// # Errors
/// `ENOTTY` when it is no master.
pub fn unlock_slave(master: impl AsFd) -> Result<(), Errno> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    let answer = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Opens the slave of a master (Linux 4.13), close-on-exec, not as controlling terminal.
///
/// # Errors
/// `ENOTTY` when it is no master.
pub fn open_slave(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let number = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if number < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor was made by the call above and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
