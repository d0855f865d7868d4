//! What network set-up needs and rustix lacks: netlink socket options, and leaving the network namespace.
//!
//! Not here: making, sending and reading netlink messages, which needs nothing unsafe (crate `network`).
#![expect(unsafe_code, reason = "setsockopt on SOL_NETLINK, and unshare, have no safe wrapper in rustix")]

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Switches of a netlink socket (netlink(7), "Socket options").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkOption {
    /// Errors carry a text and the place in the request (Linux 4.12).
    ExtendedAck,
    /// Acknowledgements do not repeat the whole request (Linux 4.3).
    CapAck,
    /// Dump requests are checked, and their filters honoured (Linux 4.20).
    StrictCheck,
}

/// Switches an option of a netlink socket on (setsockopt(2)).
pub fn enable(socket: BorrowedFd<'_>, option: NetlinkOption) -> Result<(), Errno> {
    let name = match option {
        NetlinkOption::ExtendedAck => libc::NETLINK_EXT_ACK,
        NetlinkOption::CapAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::StrictCheck => libc::NETLINK_GET_STRICT_CHK,
    };
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is a few bytes long");
    // SAFETY: the descriptor is borrowed for the call; `on` lives across it, and `length` is its exact size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, name, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Puts the calling **thread** into a new network namespace (unshare(2) with `CLONE_NEWNET`).
///
/// Other threads stay where they are; call it on a thread made for the purpose.
pub fn unshare_network() -> Result<(), Errno> {
    // SAFETY: the precondition concerns `CLONE_FILES` only; with NEWNET alone the descriptor table stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
