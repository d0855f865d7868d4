//! Signals as a descriptor: block a set in the calling thread (and the threads it starts later) and read them one by one.
#![expect(unsafe_code, reason = "rustix wraps neither signal masks nor signalfd(2)")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `sizeof(sigset_t)` in the kernel.
const SET_BYTES: usize = 8;

/// A descriptor that yields the signals blocked for it; see signalfd(2).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in the calling thread and returns a close-on-exec descriptor to read them from.
    ///
    /// Call it before other threads start: they inherit the mask, so no thread is left to take the default action.
    ///
    /// # Errors
    /// What rt_sigprocmask(2) or signalfd(2) report, `EMFILE` for one; `EINVAL` for a number that is no signal.
    pub fn block(signals: &[i32]) -> Result<Self, Errno> {
        let set = signal_set(signals)?;
        // SAFETY: `set` is a kernel signal set of `SET_BYTES` that lives across the call; the old mask is not asked for.
        let code = unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_BLOCK,
                &raw const set,
                std::ptr::null_mut::<u64>(),
                SET_BYTES,
            )
        };
        if code != 0 {
            return Err(last_errno());
        }
        // SAFETY: -1 asks for a new descriptor; `set` is a kernel signal set of `SET_BYTES` that lives across the call.
        let raw = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, SET_BYTES, libc::SFD_CLOEXEC) };
        let raw = i32::try_from(raw).map_err(|_| Errno::RANGE)?;
        if raw < 0 {
            return Err(last_errno());
        }
        // SAFETY: signalfd4 just returned this descriptor and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Waits for the next signal and returns its number. Retries `EINTR`.
    ///
    /// # Errors
    /// What read(2) reports.
    pub fn next(&self) -> Result<i32, Errno> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.0, &mut record) {
                Ok(length) if length == record.len() => {
                    // ssi_signo is the first field, a u32.
                    let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                    return i32::try_from(number).map_err(|_| Errno::RANGE);
                }
                Ok(_) => return Err(Errno::IO),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// The kernel's own form, a bit for each signal: the C library's calls refuse numbers that it keeps for itself (34 for musl), which are a
/// container's as any other.
fn signal_set(signals: &[i32]) -> Result<u64, Errno> {
    signals.iter().try_fold(0, |set, signal| match signal {
        1..=64 => Ok(set | 1 << (signal - 1)),
        _ => Err(Errno::INVAL),
    })
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivers_what_is_blocked() {
        std::thread::spawn(|| {
            let signals = SignalFd::block(&[libc::SIGUSR1]).unwrap();
            let me = rustix::thread::gettid();
            // SAFETY: a signal to this very thread, which blocks it.
            let code = unsafe { libc::syscall(libc::SYS_tkill, me.as_raw_nonzero().get(), libc::SIGUSR1) };
            assert_eq!(code, 0);
            assert_eq!(signals.next(), Ok(libc::SIGUSR1));
        })
        .join()
        .unwrap();
    }

    /// Those of the C library's own as well.
    #[test]
    fn takes_every_real_time_signal() {
        std::thread::spawn(|| drop(SignalFd::block(&(34..=64).collect::<Vec<_>>()).unwrap())).join().unwrap();
    }

    #[test]
    fn refuses_what_is_no_signal() {
        assert_eq!(SignalFd::block(&[9999]).unwrap_err(), Errno::INVAL);
        assert_eq!(SignalFd::block(&[0]).unwrap_err(), Errno::INVAL);
    }
}
