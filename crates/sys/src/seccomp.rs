//! seccomp(2): loading a filter for the calling thread.
#![expect(unsafe_code, reason = "rustix has no seccomp(2)")]

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Flags of `SECCOMP_SET_MODE_FILTER`, without the one for a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterFlags {
    pub log: bool,
    pub spec_allow: bool,
    pub wait_kill_recv: bool,
    pub thread_sync: bool,
}

impl FilterFlags {
    fn bits(self) -> libc::c_ulong {
        let mut bits = 0;
        if self.thread_sync {
            bits |= libc::SECCOMP_FILTER_FLAG_TSYNC;
        }
        if self.log {
            bits |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        if self.spec_allow {
            bits |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }
        if self.wait_kill_recv {
            bits |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        }
        bits
    }
}

/// The kernel's BPF_MAXINSNS.
const LENGTH_MAX: usize = 4096;
const INSTRUCTION_SIZE: usize = 8;

/// Loads a filter (`struct sock_filter`s as bytes, in this machine's order) for the calling thread and what it will execute.
///
/// Needs `no_new_privs` or CAP_SYS_ADMIN. Allocates a copy of the program (seccomp(2), "SECCOMP_SET_MODE_FILTER").
///
/// # Errors
/// `EINVAL` for a program the kernel does not take, `EACCES` without the privilege, `ENOSYS` before Linux 3.17.
pub fn load_filter(program: &[u8], flags: FilterFlags) -> Result<(), Errno> {
    set_mode_filter(program, flags.bits()).map(drop)
}

/// The same, returning the descriptor (close-on-exec) at which user notifications arrive (Linux 5.0).
pub fn load_filter_with_listener(program: &[u8], flags: FilterFlags) -> Result<OwnedFd, Errno> {
    // Two answers of one call exclude each other: with TSYNC the thread at fault is told by an errno (Linux 5.7).
    const TSYNC_ESRCH: libc::c_ulong = 1 << 4;
    let synchronized = if flags.thread_sync { TSYNC_ESRCH } else { 0 };
    let number = set_mode_filter(program, flags.bits() | synchronized | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn set_mode_filter(program: &[u8], flags: libc::c_ulong) -> Result<i32, Errno> {
    let (chunks, rest) = program.as_chunks::<INSTRUCTION_SIZE>();
    if !rest.is_empty() || chunks.is_empty() || chunks.len() > LENGTH_MAX {
        return Err(Errno::INVAL);
    }
    let mut instructions: Vec<libc::sock_filter> = chunks
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` and the instructions it points to live across the call; the kernel only reads them, and `len` is their
    // number.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), flags, &raw const program)
    };
    match answer {
        // A positive answer to TSYNC is the thread that could not be synchronized; ESRCH says the same.
        thread if thread > 0 && flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 => Err(Errno::SRCH),
        number if number >= 0 => i32::try_from(number).map_err(|_| Errno::OVERFLOW),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
