//! Server side of the attach socket (`berth_proto::attach`): takes a client's stream and hands it to the process it names.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::attach::{LINE_BYTES_MAX, Reply, Request};
use berth_types::ErrorClass;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use crate::socket;

const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 4096;

/// What is done with a client.
pub(crate) type Attach = Arc<dyn Fn(Request, OwnedFd) -> Reply + Send + Sync>;

/// Serves for ever; each client by itself, so none can hold up another.
pub(crate) async fn serve(listener: UnixListener, attach: Attach) {
    loop {
        let Ok(stream) = socket::accept_trusted(&listener).await else { continue };
        let attach = Arc::clone(&attach);
        tokio::spawn(async move {
            // A client that breaks off or says nothing is forgotten; it sees its connection close.
            tokio::time::timeout(EXCHANGE_TIMEOUT, exchange(stream, attach)).await.ok();
        });
    }
}

async fn exchange(mut stream: UnixStream, attach: Attach) -> io::Result<()> {
    let reply = match receive(&stream).await {
        Ok((request, client)) => attach(request, client),
        Err(error) => Reply::Error { class: ErrorClass::InvalidArgument, message: format!("attach request: {error}") },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn receive(stream: &UnixStream) -> io::Result<(Request, OwnedFd)> {
    let mut line = Vec::new();
    let mut client = None;
    while line.last() != Some(&b'\n') {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_piece(stream, &mut line, &mut client)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if line.len() > LINE_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    let request = serde_json::from_slice(&line)?;
    client.map(|client| (request, client)).ok_or_else(|| io::Error::other("no stream came with it"))
}

fn receive_piece(stream: &UnixStream, line: &mut Vec<u8>, client: &mut Option<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut piece = [0; PIECE_BYTES];
    let received =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            *client = descriptors.last().or(client.take());
        }
    }
    line.extend_from_slice(piece.get(..received.bytes).unwrap_or_default());
    Ok(received.bytes)
}
