//! The input side of an attached client, and noticing that it left.

use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::{Interest, Ready};

use super::detach_keys::{DetachKeys, Input};
use super::outlet::Outlet;
use super::stdin::Stdin;

/// Input is typed or piped in pieces; the process's pipe takes 64 KiB at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the client's input is good for.
#[derive(Debug)]
pub(crate) struct InputSide {
    /// `None`: what it sends is thrown away.
    pub(crate) stdin: Option<Arc<Stdin>>,
    /// Its end of input ends the process's.
    pub(crate) once: bool,
    pub(crate) detach_keys: DetachKeys,
    pub(crate) early_input: Vec<u8>,
    pub(crate) process_ended: tokio::sync::watch::Receiver<bool>,
}

/// Runs until the client leaves or its stream is closed by us.
pub(crate) async fn follow(outlet: Arc<Outlet>, mut side: InputSide) {
    let early = std::mem::take(&mut side.early_input);
    if !early.is_empty() && !forward(&outlet, &mut side, &early).await {
        return;
    }
    if !read_input(&outlet, &mut side).await {
        return;
    }
    if side.once
        && let Some(stdin) = &side.stdin
    {
        stdin.close();
    }
    until_hung_up(&outlet).await;
}

/// True at the end of input, false when there is nothing more to do for this client.
async fn read_input(outlet: &Arc<Outlet>, side: &mut InputSide) -> bool {
    let mut buffer = Vec::new();
    loop {
        if buffer.capacity() == 0 {
            buffer.reserve_exact(BUFFER_BYTES);
        }
        buffer.clear();
        match rustix::io::retry_on_intr(|| rustix::io::read(outlet.descriptor().get_ref(), spare_capacity(&mut buffer)))
        {
            Ok(0) => return true,
            Ok(_) => {
                if !forward(outlet, side, &buffer).await {
                    return false;
                }
                tokio::task::yield_now().await;
            }
            Err(Errno::AGAIN) => {
                buffer = Vec::new();
                tokio::select! {
                    ready = outlet.descriptor().readable() => match ready {
                        Ok(mut guard) => guard.clear_ready_matching(Ready::READABLE),
                        Err(_) => return false,
                    },
                    () = outlet.closed() => return false,
                }
            }
            Err(_) => {
                outlet.abandon();
                return false;
            }
        }
    }
}

/// False when the client detached.
async fn forward(outlet: &Arc<Outlet>, side: &mut InputSide, data: &[u8]) -> bool {
    let Some(stdin) = &side.stdin else { return true };
    let (bytes, detaches) = match side.detach_keys.filter(data) {
        Input::Forward(bytes) => (bytes, false),
        Input::Detach(bytes) => (bytes, true),
    };
    let is_ended = || outlet.is_closed() || *side.process_ended.borrow();
    tokio::select! {
        // A process that takes no more input does not end its output.
        written = stdin.write_all(&bytes, is_ended) => if written.is_err() { side.stdin = None },
        () = outlet.closed() => return false,
    }
    if detaches {
        outlet.finish();
    }
    !detaches
}

/// A client that ended its input may still read; it has left when both directions are shut.
async fn until_hung_up(outlet: &Arc<Outlet>) {
    loop {
        tokio::select! {
            ready = outlet.descriptor().ready(Interest::WRITABLE) => match ready {
                Ok(guard) if guard.ready().is_write_closed() => return outlet.abandon(),
                Ok(mut guard) => guard.clear_ready_matching(Ready::WRITABLE),
                Err(_) => return outlet.abandon(),
            },
            () = outlet.closed() => return,
        }
    }
}
