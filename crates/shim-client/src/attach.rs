//! Handing a client's stream to the shim over `<bundle>/io.sock` (see `berth_proto::attach` for the two lines exchanged).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_proto::attach::{LINE_BYTES_MAX, Reply, Request, SOCKET_NAME};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::ShimError;

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn attach(bundle: &Path, request: &Request, stream: OwnedFd) -> Result<(), ShimError> {
    let path = bundle.join(SOCKET_NAME);
    let failed = |source| ShimError::Attach { path: path.clone(), source };
    let exchange = async {
        let mut socket = connect(bundle).await?;
        send(&mut socket, request, &stream).await?;
        read_reply(&mut socket).await
    };
    let reply = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| ShimError::Deadline { call: "attach", seconds: TIMEOUT.as_secs() })?
        .map_err(failed)?;
    match reply {
        Reply::Ok(_) => Ok(()),
        Reply::Error { class, message } => Err(ShimError::Remote { class, message }),
    }
}

/// By the bundle's descriptor: socket addresses are limited to 107 bytes, bundle paths are not.
async fn connect(bundle: &Path) -> io::Result<UnixStream> {
    let dir = rustix::fs::open(bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd())).await
}

async fn send(socket: &mut UnixStream, request: &Request, stream: &OwnedFd) -> io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = loop {
        socket.writable().await?;
        let attempt = socket.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [stream.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(rustix::net::sendmsg(&*socket, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?)
        });
        match attempt {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
    };
    socket.write_all(line.get(sent..).unwrap_or_default()).await
}

async fn read_reply(socket: &mut UnixStream) -> io::Result<Reply> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() > LINE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if socket.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(serde_json::from_slice(&line)?)
}
