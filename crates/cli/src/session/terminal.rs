//! Our own terminal: raw mode with a guard that restores it, and its size.

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::{Failure, Outcome};

/// Raw mode of stdin's terminal; dropped, it is as before.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` when stdin is no terminal.
    pub(crate) fn enter() -> Outcome<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let failed = |errno: rustix::io::Errno| Failure::new("cannot set the terminal to raw mode").because(&errno);
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        tcsetattr(stdin(), OptionalActions::Now, &self.before).unwrap_or_default();
    }
}

/// Runs something while the terminal does not show what is typed.
pub(crate) fn without_echo<T>(work: impl FnOnce() -> T) -> Outcome<T> {
    let failed = |errno: rustix::io::Errno| Failure::new("cannot turn the terminal's echo off").because(&errno);
    let before = tcgetattr(stdin()).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Now, &silent).map_err(failed)?;
    let restoring = RawTerminal { before };
    let done = work();
    drop(restoring);
    Ok(done)
}

/// Rows and columns of the terminal we are on, when there is one with a size.
pub(crate) fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
