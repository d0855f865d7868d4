//! clone3(2): a child that runs a closure, and leaving it.
//!
//! Not a thread and not vfork: the child has a copy of the address space. The caller must be single-threaded, else the child could
//! inherit a lock (the allocator's, stdio's) that nobody will ever release.
#![expect(unsafe_code, reason = "rustix has no clone3(2) and no _exit(2)")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// The child as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// In the caller's PID namespace.
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// What the child shall have of its own, and where it is born.
#[derive(Debug, Default)]
pub struct CloneArgs<'fd> {
    pub namespaces: u64,
    /// The v2 cgroup directory for `CLONE_INTO_CGROUP` (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// The child's parent shall be the caller's parent (`CLONE_PARENT`).
    pub sibling: bool,
    /// One table of descriptors for both (`CLONE_FILES`): the child must neither close nor drop any.
    pub shares_descriptors: bool,
}

/// `CLONE_NEWTIME`, which clone3 takes and `UnshareFlags` names.
pub fn namespace_bits(flags: UnshareFlags) -> u64 {
    u64::from(flags.bits())
}

const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;
const CLONE_FILES: u64 = libc::CLONE_FILES as u64;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What clone(2) takes: 32 bits, of which the lowest eight are the signal at the child's end.
const LEGACY_FLAGS_MAX: u64 = 0xffff_ffff;
const LEGACY_SIGNAL_MASK: u64 = 0xff;

/// Clones; the child runs `child` and leaves by `_exit` with what it returns, the parent gets pid and pidfd.
///
/// A panic of the closure ends the child with 255 (it never unwinds into the caller's frames).
///
/// # Errors
/// The kernel's: `ENOSYS` before Linux 5.3 for what clone(2) cannot do, `EPERM`, `ENOSPC` (too many namespaces), `EAGAIN` (pids limit), `EBUSY` (v2 cgroup
/// with domain controllers enabled).
pub fn clone_child(args: &CloneArgs<'_>, child: impl FnOnce() -> u8) -> Result<Child, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = args.namespaces | CLONE_PIDFD;
    let mut cgroup = 0;
    if let Some(fd) = args.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    let mut exit_signal = libc::SIGCHLD as u64;
    if args.sibling {
        flags |= CLONE_PARENT;
        exit_signal = 0;
    }
    if args.shares_descriptors {
        flags |= CLONE_FILES;
    }
    let mut raw = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: `raw` is a valid clone_args of the size given; without CLONE_VM the child has its own copy of this stack, and the
    // caller is single-threaded by contract, so no lock is held by a thread that the child lacks.
    let mut answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<libc::clone_args>()) };
    // Filters of containers refuse clone3 so, since they cannot look at its arguments: berth-init meets that in every container.
    if answer == -1 && last_errno() == Errno::NOSYS && flags <= LEGACY_FLAGS_MAX && flags & LEGACY_SIGNAL_MASK == 0 {
        let none = std::ptr::null::<libc::c_void>();
        // SAFETY: as above; clone(2) without a stack goes on with the copied one, and stores the descriptor where the third
        // argument points, on every architecture.
        answer = unsafe { libc::syscall(libc::SYS_clone, flags | exit_signal, none, &raw mut pidfd, none, none) };
    }
    match answer {
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(255);
            exit_now(code)
        }
        pid if pid > 0 => {
            // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: u32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
        }
        _ => Err(last_errno()),
    }
}

/// Ends the process at once: no destructors, no exit handlers, no stdio flush.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
