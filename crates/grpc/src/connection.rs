//! A client's connection, made for short calls: one read and one write per call instead of three to five.
//!
//! HTTP/2 flushes what it has whenever it has looked at its input: the acknowledgement of a ping goes out alone, and the answer to the call that
//! came with it after it. Each such piece wakes the client once more. Here a flush waits for a beat: a job that stands in the event loop's queue
//! for one turn and then wakes the connection, which comes after the calls that were begun meanwhile. No timer is in it; an answer that is there
//! at once leaves with all that came before it.
//!
//! What this is not: a buffer without a bound. Over [`GATHERED_BYTES_MAX`] the writer waits for the socket.
//! Invariant: only the job that polls the connection flushes it, and it flushes again whenever it is polled.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use rustix::net::{SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::transport::server::Connected;

/// As much as the kernel takes of one client without being asked for more.
const GATHERED_BYTES_MAX: usize = 128 << 10;
/// So much is worth a write of its own.
const FLUSH_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    /// Watched for input only: that a client took bytes is of no interest as long as the socket takes ours.
    socket: AsyncFd<OwnedFd>,
    /// Watched for room, as long as the socket is full.
    full: Option<AsyncFd<OwnedFd>>,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that are written.
    written: usize,
    beat: Arc<Beat>,
    beating: AbortHandle,
    /// A flush was asked for; it is done when the beat has come.
    is_asked: bool,
}

/// One turn of the event loop.
#[derive(Debug, Default)]
struct Beat {
    wanted: Notify,
    has_come: AtomicBool,
    connection: Mutex<Option<Waker>>,
}

impl Beat {
    /// Ends with the connection.
    async fn go_on(self: Arc<Self>) {
        loop {
            self.wanted.notified().await;
            self.has_come.store(true, Ordering::Release);
            let connection = self.connection.lock().take();
            connection.into_iter().for_each(Waker::wake);
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may change descriptor; OwnedFd keeps one for life"
)]
fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

impl Connection {
    /// # Errors
    /// When it cannot be watched.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        let socket = watch(OwnedFd::from(stream.into_std()?), Interest::READABLE)?;
        let beat = Arc::new(Beat::default());
        let beating = tokio::spawn(Arc::clone(&beat).go_on()).abort_handle();
        Ok(Self { socket, full: None, gathered: Vec::new(), written: 0, beat, beating, is_asked: false })
    }

    /// Writes what is gathered, waiting while the client does not take it.
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            match self.send() {
                Ok(sent) => self.written += sent,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => ready!(self.poll_room(context))?,
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        self.full = None;
        self.written = 0;
        if self.gathered.capacity() > FLUSH_BYTES {
            self.gathered = Vec::new();
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }

    fn send(&self) -> rustix::io::Result<usize> {
        let rest = self.gathered.get(self.written..).unwrap_or_default();
        // A client that has gone is an error, not a signal.
        rustix::net::send(self.socket.get_ref(), rest, SendFlags::NOSIGNAL)
    }

    /// Ready when the socket may have room.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let full = match &mut self.full {
            Some(full) => full,
            none => none.insert(watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?),
        };
        let mut ready = ready!(full.poll_write_ready(context))?;
        // Only a hint: the next write decides, and a later change wakes us again.
        ready.clear_ready();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut ready = ready!(this.socket.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            match rustix::io::read(this.socket.get_ref(), room) {
                Ok(read) => {
                    // Less than could have come is all there is: the next read need not find that out.
                    if read > 0 && read < wanted {
                        ready.clear_ready();
                    }
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() >= GATHERED_BYTES_MAX {
            ready!(this.poll_write_out(context))?;
        }
        this.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if this.gathered.len() < FLUSH_BYTES && !this.beat.has_come.load(Ordering::Acquire) {
            *this.beat.connection.lock() = Some(context.waker().clone());
            if !std::mem::replace(&mut this.is_asked, true) {
                this.beat.wanted.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_write_out(context))?;
        // A beat that is still to come finds nothing to do.
        this.is_asked = false;
        this.beat.has_come.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(context))?;
        match rustix::net::shutdown(this.socket.get_ref(), Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.beating.abort();
        // Last words of a connection that is closed in the turn they were said in; a client that does not take them goes without.
        if self.written < self.gathered.len() {
            self.send().ok();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests;
