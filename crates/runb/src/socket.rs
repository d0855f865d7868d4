//! Descriptors for whoever listens at a Unix socket: the terminal's master (`--console-socket`), a process (`--pidfd-socket`).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::CommandError;

/// A connected socket, found before anything is made that would have to be undone.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

impl Receiver {
    pub(crate) fn connect(path: Option<&Path>) -> Result<Option<Self>, CommandError> {
        let Some(path) = path else { return Ok(None) };
        let failed = |source: rustix::io::Errno| CommandError::File {
            what: "connect to the socket",
            path: path.display().to_string(),
            source: source.into(),
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        Ok(Some(Self(socket)))
    }

    /// One message with one descriptor. The name goes along as the payload, as runc sends it; receivers ignore or print it.
    pub(crate) fn send(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), CommandError> {
        let kernel = |source| CommandError::Kernel { what: "send a descriptor to a socket", source };
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(kernel(rustix::io::Errno::NOBUFS));
        }
        let payload = [IoSlice::new(name.as_bytes())];
        rustix::net::sendmsg(&self.0, &payload, &mut control, SendFlags::NOSIGNAL).map_err(kernel)?;
        Ok(())
    }
}

/// The sockets a command was given.
#[derive(Debug)]
pub(crate) struct Receivers {
    console: Option<Receiver>,
    pidfd: Option<Receiver>,
}

impl Receivers {
    pub(crate) fn connect(console: Option<&Path>, pidfd: Option<&Path>) -> Result<Self, CommandError> {
        Ok(Self { console: Receiver::connect(console)?, pidfd: Receiver::connect(pidfd)? })
    }

    /// Gives each what it waits for; a terminal that was given away is not ours any more.
    pub(crate) fn serve(&self, process: &mut berth_runtime::Process) -> Result<(), CommandError> {
        if let Some(console) = &self.console
            && let Some(master) = process.console.take()
        {
            console.send("/dev/ptmx", master.as_fd())?;
        }
        self.pidfd.as_ref().map_or(Ok(()), |pidfd| pidfd.send("pidfd", process.pidfd.as_fd()))
    }
}
