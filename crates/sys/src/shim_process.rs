//! Calls a shim needs to become a process of its own: fork without exec, signal dispositions, a signal by pidfd.
#![expect(
    unsafe_code,
    reason = "fork, sigaction and pidfd_send_signal with any signal number have no safe wrapper in rustix"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// On which side of a fork we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Parent { child: Pid },
    Child,
}

/// fork(2) of a process with one thread. The child goes on as a full process: it may allocate and build an async runtime.
///
/// # Errors
/// `EDEADLK` when this process has further threads (their locks would stay held for ever in the child), and what fork says.
pub fn fork_single_threaded() -> Result<Fork, Errno> {
    // Links of a task directory: ".", ".." and one per thread.
    if rustix::fs::stat("/proc/self/task")?.st_nlink > 3 {
        return Err(Errno::DEADLK);
    }
    // SAFETY: the process has exactly one thread (checked above), so no lock of libc or of ours can be held by a thread
    // that the child lacks; both sides therefore go on in a consistent state.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Pid::from_raw(pid).map(|child| Fork::Parent { child }).ok_or(Errno::CHILD),
        _ => Err(last_errno()),
    }
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

/// Takes the signal with a handler that does nothing. Unlike `SIG_IGN` this is reset by execve, so a process started by us
/// does not inherit it.
///
/// # Errors
/// `EINVAL` for a signal that cannot be handled.
pub fn swallow_signal(signal: i32) -> Result<(), Errno> {
    // SAFETY: sigaction is a plain C struct for which all zeroes is a valid value (empty mask, no flags, SIG_DFL).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_RESTART;
    action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: `action` is initialised and lives for the call; the handler touches nothing, so it is async-signal-safe;
    // the old action is not asked for.
    let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// pidfd_send_signal(2), Linux 5.1, with any signal number including the real-time ones.
///
/// # Errors
/// `ESRCH` when the process has been reaped, `EINVAL` for a number out of range.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call; a null siginfo makes the kernel fill in what kill(2) would; flags are 0.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0u32) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_signal_reaches_the_process_by_pidfd() {
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        pidfd_send_signal(pidfd.as_fd(), 40).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(40));
        assert_eq!(pidfd_send_signal(pidfd.as_fd(), 9), Err(Errno::SRCH));
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
        assert_eq!(pidfd_send_signal(own.as_fd(), 1000), Err(Errno::INVAL));
    }

    #[test]
    fn kill_cannot_be_swallowed() {
        assert_eq!(swallow_signal(libc::SIGKILL), Err(Errno::INVAL));
        assert_eq!(swallow_signal(libc::SIGWINCH), Ok(()));
    }
}
