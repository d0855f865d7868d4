//! Taking signals one after the other instead of being interrupted by them: sigprocmask(2), sigwaitinfo(2).
#![expect(unsafe_code, reason = "rustix keeps signal masks behind an experimental feature")]

use rustix::io::Errno;

use crate::clone::last_errno;

fn all() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initializes the set it is given and cannot fail for a valid pointer.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialized just above.
    unsafe { set.assume_init() }
}

/// Blocks every signal that can be blocked, for the calling thread.
///
/// # Errors
/// Never in practice; the kernel's.
pub fn block_all() -> Result<(), Errno> {
    let set = all();
    // SAFETY: the set lives across the call, and the old mask is not asked for.
    let answer = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Waits for the next blocked signal and takes it.
///
/// # Errors
/// `EINTR` when the process was stopped and continued meanwhile.
pub fn wait() -> Result<i32, Errno> {
    let set = all();
    // SAFETY: the set lives across the call; the details of the signal are not asked for.
    let answer = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
    if answer > 0 { Ok(answer) } else { Err(last_errno()) }
}

/// Sends a signal by number, real-time ones included, to a process (or, negated, a process group).
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory.
    let answer = unsafe { libc::kill(pid, signal) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}
