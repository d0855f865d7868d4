//! Standard input and output of the processes: who gets the bytes, and what happens when somebody is slow.
//!
//! ```text
//!   process ──pipe/pty──> copier ──> Hub ──┬──> JsonFile   (written before the next read)
//!                                          ├──> Outlet     (attached client: framed; 1 MiB queue)
//!                                          └──> Outlet     (FIFO, file or logger of another engine: raw)
//!   process <─pipe/pty─── Stdin <──── attached clients, FIFO
//! ```
//!
//! Back-pressure: a copier does not read while an outlet's queue is full, so the process blocks as it would on a slow terminal.
//! A client that takes nothing for `outlet::PATIENCE` with a full queue is dropped and the container goes on.
//! Invariants: nothing is read that cannot be delivered; an idle process holds no buffer.

mod attach;
mod client;
mod copier;
mod detach_keys;
mod hub;
mod json_file;
mod json_line;
mod log_binary;
mod outlet;
mod process_io;
mod readers;
mod stdin;
mod uri;

pub(crate) use attach::{Attach, serve as serve_attach};
pub(crate) use log_binary::Subject;
pub(crate) use outlet::OpenOutlets;
pub(crate) use process_io::{IoError, ProcessIo, Streams, remove_fifos};
pub(crate) use uri::{IoRequest, Owner, UriError};

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// Registers a descriptor with the reactor; it must be non-blocking.
#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may change descriptor; OwnedFd keeps one for life"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// Sets `O_NONBLOCK` on the open file description.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Bytes in a pipe, FIFO or terminal that nobody has read yet.
pub(crate) fn unread(fd: &OwnedFd) -> u64 {
    rustix::io::ioctl_fionread(fd).unwrap_or_default()
}
