//! Waiting for a process in the foreground: signals go to it, a terminal is copied both ways and follows the size of ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::Process;
use berth_sys::signal_fd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::CommandError;

const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGWINCH: i32 = 28;
/// About our own terminal or our own stop: TSTP, TTIN, TTOU, CONT.
const OWN: [i32; 4] = [20, 21, 22, SIGCONT];
/// Without KILL and STOP, which nobody gets, and the three that C libraries keep for themselves.
const FORWARDED: std::ops::RangeInclusive<i32> = 1..=64;
const KEPT: [i32; 5] = [9, 19, 32, 33, 34];

/// Signals wait here from before the process is made, so that none is lost.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    pub(crate) fn hold() -> Result<Self, CommandError> {
        let signals: Vec<i32> = FORWARDED.filter(|signal| !KEPT.contains(signal)).collect();
        let held = SignalFd::block(&signals);
        held.map(Self).map_err(|source| CommandError::Kernel { what: "block signals", source })
    }

    /// Until the process ends; its exit code as a shell has it.
    pub(crate) fn wait(&self, process: &mut Process) -> Result<u8, CommandError> {
        let master = process.console.take();
        let _raw = master.is_some().then(RawMode::enter);
        let kernel = |source| CommandError::Kernel { what: "wait for the process", source };
        let mut terminal = master.as_ref().map(Terminal::new);
        loop {
            let (input, output) = terminal.as_ref().map_or((PollFlags::empty(), PollFlags::empty()), Terminal::wanted);
            let stdin = std::io::stdin();
            let idle = process.pidfd.as_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(master.as_ref().map_or(idle, AsFd::as_fd), output),
                PollFd::from_borrowed_fd(if input.is_empty() { idle } else { stdin.as_fd() }, input),
            ];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(kernel)?;
            let [ended, signal, output, input] = fds.map(|fd| fd.revents());
            if let Some(terminal) = &mut terminal {
                terminal.copy(output, input);
                // What was printed last is shown before the end is believed.
                if terminal.has_output && !output.is_empty() {
                    continue;
                }
            }
            if !signal.is_empty() {
                self.forward(process, master.as_ref());
            }
            if !ended.is_empty()
                && let Some(code) = end_of(process)?
            {
                return Ok(code);
            }
        }
    }

    fn forward(&self, process: &Process, master: Option<&OwnedFd>) {
        match self.0.next() {
            Ok(SIGCHLD) | Err(_) => {}
            Ok(SIGWINCH) if master.is_some() => {
                if let (Some(master), Ok(size)) = (master, tcgetwinsize(std::io::stdin())) {
                    let _hung_up = tcsetwinsize(master, size);
                }
            }
            Ok(signal) if OWN.contains(&signal) => {}
            Ok(signal) => {
                let _gone = berth_sys::shim_process::pidfd_send_signal(process.pidfd.as_fd(), signal);
            }
        }
    }
}

fn end_of(process: &Process) -> Result<Option<u8>, CommandError> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(process.pidfd.as_fd()), options)
        .map_err(|source| CommandError::Kernel { what: "wait for the process", source })?;
    Ok(status.map(|status| {
        let signalled = status.terminating_signal().map(|signal| 128 + signal);
        status.exit_status().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
    }))
}

/// The container's terminal beside ours.
#[derive(Debug)]
struct Terminal<'a> {
    master: &'a OwnedFd,
    has_input: bool,
    has_output: bool,
}

impl<'a> Terminal<'a> {
    fn new(master: &'a OwnedFd) -> Self {
        Self { master, has_input: true, has_output: true }
    }

    /// What to wait for on our input and on its output.
    fn wanted(&self) -> (PollFlags, PollFlags) {
        let flags = |open| if open { PollFlags::IN } else { PollFlags::empty() };
        (flags(self.has_input), flags(self.has_output))
    }

    /// The master hangs up while nobody has its slave open; only then is its output over.
    fn copy(&mut self, output: PollFlags, input: PollFlags) {
        if self.has_output && !output.is_empty() {
            self.has_output = copy(self.master.as_fd(), std::io::stdout().as_fd());
        }
        if self.has_input && !input.is_empty() {
            self.has_input = copy(std::io::stdin().as_fd(), self.master.as_fd());
        }
    }
}

/// Puts the terminal back as it was. It still ends lines with a carriage return, for the container's terminal does not. In raw mode the keys that mean signals are bytes for the container's own terminal.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            raw.output_modes.insert(OutputModes::OPOST);
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

/// Moves what is there; `false` at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
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
