//! Moves one output stream of a process to its hub until the stream ends, or until it is told to stop.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::Stream;
use super::hub::Hub;

/// Large enough that the allocator maps it by itself and gives it back when the stream falls idle.
const BUFFER_BYTES: usize = 192 * 1024;

/// `stop` turning true: read what is there and end, without waiting for slow receivers any more.
pub(crate) async fn copy(
    source: Arc<AsyncFd<OwnedFd>>,
    stream: Stream,
    hub: Arc<Hub>,
    mut stop: watch::Receiver<bool>,
) {
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = hub.room(stream) => {}
            () = stopped(&mut stop) => {}
        }
        if buffer.capacity() == 0 {
            buffer.reserve_exact(BUFFER_BYTES);
        }
        buffer.clear();
        match rustix::io::retry_on_intr(|| rustix::io::read(source.get_ref(), spare_capacity(&mut buffer))) {
            Ok(0) => break,
            Ok(_) => {
                hub.deliver(stream, &buffer);
                // Other streams and calls have their turn between two pieces.
                tokio::task::yield_now().await;
            }
            Err(Errno::AGAIN) if *stop.borrow() => break,
            Err(Errno::AGAIN) => {
                buffer = Vec::new();
                tokio::select! {
                    ready = source.readable() => match ready {
                        // Taken as a hint only: the read above decides.
                        Ok(mut guard) => guard.clear_ready(),
                        Err(_) => break,
                    },
                    () = stopped(&mut stop) => {}
                }
            }
            // EIO: the last holder of the terminal has gone.
            Err(_) => break,
        }
    }
    hub.end(stream);
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone cannot stop us.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
