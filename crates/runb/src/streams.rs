//! Standard streams of a container: our own, or a terminal.

use std::os::fd::{AsFd, BorrowedFd};

use berth_runtime::Stdio;

use crate::error::CommandError;

/// Copies of our own three, above the standard numbers.
pub(crate) fn inherited() -> Result<Stdio, CommandError> {
    let copy = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .map_err(|source| CommandError::Kernel { what: "use a standard stream", source })
    };
    Ok(Stdio::Fds {
        stdin: copy(std::io::stdin().as_fd())?,
        stdout: copy(std::io::stdout().as_fd())?,
        stderr: copy(std::io::stderr().as_fd())?,
    })
}

/// A terminal as large as ours, where we have one.
pub(crate) fn terminal(size: Option<(u16, u16)>) -> Stdio {
    let own = || rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|size| (size.ws_row, size.ws_col));
    let (rows, columns) = size.or_else(own).unwrap_or((0, 0));
    Stdio::Terminal { rows, columns }
}

/// Descriptors to pass: those asked for, and those of socket activation. They must be open before anything else is opened.
pub(crate) fn preserved(asked: u32, listen_fds: u32) -> Result<u32, CommandError> {
    let count = asked.max(listen_fds);
    for number in 3..count.saturating_add(3) {
        if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(CommandError::Usage(format!("descriptor {number} is to be preserved but not open")));
        }
    }
    Ok(count)
}
