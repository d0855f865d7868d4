//! The console socket: a runtime that makes a terminal sends its master side there (runc's `docs/terminals.md`).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

use super::CommandError;
use super::command::OneCallFile;
use crate::socket;

/// It is sent before the command ends.
const TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Bound in the directory in which the command runs; gone with this.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    listener: UnixListener,
    file: OneCallFile,
}

impl ConsoleSocket {
    pub(super) fn bind(directory: &Path, file: OneCallFile) -> Result<Self, CommandError> {
        let listener = socket::listen_in(directory, &file.name()).map_err(|source| CommandError::File {
            what: "bind",
            path: file.path().to_owned(),
            source,
        })?;
        Ok(Self { listener, file })
    }

    /// Relative to the command's working directory: addresses are limited to 107 bytes, bundle paths are not.
    pub(super) fn path(&self) -> String {
        self.file.name()
    }

    pub(super) fn receive(self, rows: u16, columns: u16) -> Result<OwnedFd, CommandError> {
        let failed =
            |source| CommandError::File { what: "take the terminal from", path: self.file.path().to_owned(), source };
        let master = self.take().map_err(failed)?.ok_or(CommandError::NoTerminal)?;
        if (rows, columns) != (0, 0) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size).map_err(|errno| failed(errno.into()))?;
        }
        Ok(master)
    }

    fn take(&self) -> io::Result<Option<OwnedFd>> {
        if rustix::event::poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&TIMEOUT))? == 0 {
            return Ok(None);
        }
        let (stream, _) = self.listener.accept()?;
        if rustix::event::poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&TIMEOUT))? == 0 {
            return Ok(None);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // The message is the terminal's name, which nobody needs.
        let mut name = [0; 4096];
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut master = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                master = descriptors.last().or(master.take());
            }
        }
        Ok(master)
    }
}
