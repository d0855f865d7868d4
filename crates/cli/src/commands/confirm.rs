//! Asks before something is removed.

use std::io::BufRead;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Prints the warning and waits for `y`; anything else, also the end of stdin, stops.
pub(crate) fn confirm(cx: &mut Context, warning: &str) -> Outcome<()> {
    cx.out.flush()?;
    crate::output::Output::error_bytes(format!("{warning}\nAre you sure you want to continue? [y/N] ").as_bytes());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !rustix::termios::isatty(rustix::stdio::stdin()) {
        crate::output::Output::error_bytes(b"\n");
    }
    if matches!(answer.trim(), "y" | "Y") {
        return Ok(());
    }
    Err(Failure::new("nothing was removed: not confirmed").hint("answer y, or use --force"))
}
