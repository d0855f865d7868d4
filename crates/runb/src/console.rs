//! The console socket: the terminal's master goes to whoever listens there, as one message with the descriptor.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::CommandError;

pub(crate) fn send_master(path: &Path, master: &OwnedFd) -> Result<(), CommandError> {
    let kernel = |source| CommandError::Kernel { what: "send the terminal to the console socket", source };
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(kernel)?;
    let address = SocketAddrUnix::new(path).map_err(kernel)?;
    rustix::net::connect(&socket, &address).map_err(kernel)?;
    let fds = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(kernel(rustix::io::Errno::NOBUFS));
    }
    // The name is what runc sends, too; receivers of the field ignore or print it.
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL).map_err(kernel)?;
    Ok(())
}
