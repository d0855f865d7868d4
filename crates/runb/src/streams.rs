//! Standard streams of a container: our own, or a terminal.

use std::os::fd::{AsFd, BorrowedFd};

use berth_oci::runtime::Box as ConsoleSize;
use berth_runtime::Stdio;

use crate::error::CommandError;

/// Who holds a terminal's master must be able to read it.
pub(crate) fn check_terminal(terminal: bool, detach: bool, has_socket: bool) -> Result<(), CommandError> {
    match (terminal, detach, has_socket) {
        (true, true, false) => Err(CommandError::Usage(
            "cannot allocate tty if runb will detach without setting console socket".to_owned(),
        )),
        (false, _, true) | (true, false, true) => {
            Err(CommandError::Usage("cannot use console socket if runb will not detach or allocate tty".to_owned()))
        }
        _ => Ok(()),
    }
}

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

/// A terminal of the size asked for, else as large as ours, where we have one. In the foreground our own terminal, or whoever reads
/// our output, ends its lines as it likes, as with runc; who gets the master by a socket gets it as the kernel made it.
pub(crate) fn terminal(asked: Option<&ConsoleSize>, is_foreground: bool) -> Stdio {
    let number = |value: u64| u16::try_from(value).unwrap_or(0);
    let asked = asked.map(|size| (number(size.height()), number(size.width())));
    let own = || rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|size| (size.ws_row, size.ws_col));
    let (rows, columns) = asked.or_else(own).unwrap_or((0, 0));
    Stdio::Terminal { rows, columns, keeps_newlines: is_foreground }
}

/// How many descriptors from 3 on are passed: those of socket activation, then those asked for. They must be open before anything
/// else is opened.
pub(crate) fn preserved(asked: u32, listen_fds: u32) -> Result<u32, CommandError> {
    let count = asked.saturating_add(listen_fds);
    for number in 3..count.saturating_add(3) {
        if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let which = number - 3;
            return Err(CommandError::Usage(format!(
                "unable to stat preserved-fd {which} (of {count}): it is not open"
            )));
        }
    }
    Ok(count)
}
