//! A child in a session of its own: no controlling terminal, not reached by the terminal's signals.
#![expect(unsafe_code, reason = "pre_exec is unsafe, and setsid(2) must run between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes `command` call setsid(2) in the child before it executes.
pub fn in_new_session(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only one async-signal-safe system call runs; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(std::io::Error::from)) }
}
