//! Waiting for a process in the foreground: signals go to it, a terminal is copied both ways.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CommandError;

const CHILD: i32 = 17;
/// About ourselves or our terminal: TTIN, TTOU, STOP's kin.
const OWN: [i32; 4] = [20, 21, 22, 18];

/// Signals wait from here on, so that none is lost between start and [`wait`].
pub(crate) fn hold_signals() -> Result<(), CommandError> {
    berth_sys::signals::block_all().map_err(|source| CommandError::Kernel { what: "block signals", source })
}

/// Until the process ends; its exit code as a shell has it.
pub(crate) fn wait(process: &mut Process) -> Result<u8, CommandError> {
    if let Some(master) = process.console.take() {
        return with_terminal(process, &master);
    }
    loop {
        if let Some(code) = ended(process)? {
            return Ok(code);
        }
        match berth_sys::signals::wait() {
            Ok(CHILD) | Err(_) => {}
            Ok(signal) if OWN.contains(&signal) => {}
            Ok(signal) => {
                let _gone = berth_sys::shim_process::pidfd_send_signal(process.pidfd.as_fd(), signal);
            }
        }
    }
}

fn ended(process: &Process) -> Result<Option<u8>, CommandError> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(process.pidfd.as_fd()), options)
        .map_err(|source| CommandError::Kernel { what: "wait for the process", source })?;
    Ok(status.map(|status| {
        let signalled = status.terminating_signal().map(|signal| 128 + signal);
        status.exit_status().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
    }))
}

/// Puts the terminal back as it was.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _not_ours = tcsetattr(std::io::stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _not_ours = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// In raw mode the keys that mean signals are bytes for the container's own terminal.
fn with_terminal(process: &Process, master: &OwnedFd) -> Result<u8, CommandError> {
    let kernel = |source| CommandError::Kernel { what: "copy the terminal", source };
    let _raw = RawMode::enter();
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut has_input = true;
    loop {
        let input = if has_input { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), input),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(kernel)?;
        let [from_master, from_process, from_stdin] = [fds[0].revents(), fds[1].revents(), fds[2].revents()];
        // What was printed last is read before the end is believed: the master hangs up when its slaves are closed.
        if !from_master.is_empty() && copy(master.as_fd(), stdout.as_fd()) {
            continue;
        }
        if !from_process.is_empty() {
            return ended(process).map(|code| code.unwrap_or(255));
        }
        if has_input && !from_stdin.is_empty() {
            has_input = copy(stdin.as_fd(), master.as_fd());
        }
        if !from_master.is_empty() && from_process.is_empty() {
            let mut end = [PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut end, None)).map_err(kernel)?;
        }
    }
}

/// Moves what is there; `false` at the end.
fn copy(from: std::os::fd::BorrowedFd<'_>, to: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) else { return false };
    let mut rest = buffer.get(..length).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) => return false,
        }
    }
    true
}
