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

/// Rows and columns of the terminal we are on, when there is one with a size.
pub(crate) fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
