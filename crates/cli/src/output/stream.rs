//! The process's two output streams. Stdout is buffered and flushed before anything blocks; stderr is not.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::failure::{Failure, Outcome};

/// Stdout as a writer without std's line buffering and lock.
#[derive(Debug)]
struct RawStdout;

impl Write for RawStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_fd(rustix::stdio::stdout(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_fd(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(fd, bytes) {
            Ok(length) => return Ok(length),
            Err(Errno::INTR) => {}
            // Somebody else made the shared terminal or pipe non-blocking.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None).unwrap_or_default();
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Where a verb writes.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<RawStdout>,
    pub(crate) is_terminal: bool,
    pub(crate) is_error_terminal: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            stdout: BufWriter::with_capacity(32 << 10, RawStdout),
            is_terminal: io::stdout().is_terminal(),
            is_error_terminal: io::stderr().is_terminal(),
        }
    }

    /// One line of data.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Outcome<()> {
        writeln!(self.stdout, "{text}").map_err(|error| Failure::writing_stdout(&error))
    }

    /// Data as it is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stdout.write_all(bytes).map_err(|error| Failure::writing_stdout(&error))
    }

    pub(crate) fn flush(&mut self) -> Outcome<()> {
        self.stdout.flush().map_err(|error| Failure::writing_stdout(&error))
    }

    /// A line on stderr; when even that cannot be written nobody is left to tell.
    pub(crate) fn notice(&self, text: impl fmt::Display) {
        Self::error_bytes(format!("{text}\n").as_bytes());
    }

    /// A failure of one of several objects.
    pub(crate) fn report(failure: &Failure) {
        Self::error_bytes(format!("{failure}\n").as_bytes());
    }

    /// Bytes of a container's stderr, or of a notice.
    pub(crate) fn error_bytes(mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match write_fd(rustix::stdio::stderr(), bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(_) => return,
            }
        }
    }
}
