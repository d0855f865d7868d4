//! Standard input of one process: a pipe or the terminal's master, written by whoever is attached.
//!
//! Writers that come before the process has its input wait for it. Pieces of different writers do not mix.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Stdin {
    state: Mutex<State>,
    changed: Notify,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
enum State {
    Unconnected { is_ended: bool },
    Open(Arc<AsyncFd<OwnedFd>>),
    Closed,
}

/// The process takes no more input.
#[derive(Debug)]
pub(crate) struct InputClosed;

impl Stdin {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Unconnected { is_ended: false }),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Gives the process's end; `None` when it reads from nobody.
    pub(crate) fn connect(&self, fd: Option<Arc<AsyncFd<OwnedFd>>>) {
        let mut state = self.lock();
        *state = match (&*state, fd) {
            (State::Unconnected { is_ended: false }, Some(fd)) => State::Open(fd),
            _ => State::Closed,
        };
        self.changed.notify_waiters();
    }

    /// End of input. A piece being written is written first.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        *state = match *state {
            State::Unconnected { .. } => State::Unconnected { is_ended: true },
            State::Open(_) | State::Closed => State::Closed,
        };
        self.changed.notify_waiters();
    }

    /// The process has ended: pieces being written are given up.
    pub(crate) fn abandon(&self) {
        *self.lock() = State::Closed;
        self.changed.notify_waiters();
    }

    /// Returns when no more input can come.
    pub(crate) async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if matches!(&*self.lock(), State::Closed) {
                return;
            }
            changed.await;
        }
    }

    /// Writes all of `data`, waiting as long as the process does not read.
    pub(crate) async fn write_all(&self, mut data: &[u8], ended: impl Fn() -> bool) -> Result<(), InputClosed> {
        let _turn = self.turn.lock().await;
        let fd = self.connected().await?;
        while !data.is_empty() {
            let changed = self.changed.notified();
            if ended() {
                return Err(InputClosed);
            }
            match rustix::io::retry_on_intr(|| rustix::io::write(fd.get_ref(), data)) {
                Ok(written) => data = data.get(written..).unwrap_or_default(),
                Err(Errno::AGAIN) => tokio::select! {
                    ready = fd.writable() => match ready {
                        Ok(mut guard) => guard.clear_ready_matching(tokio::io::Ready::WRITABLE),
                        Err(_) => return Err(InputClosed),
                    },
                    () = changed => {}
                },
                Err(_) => {
                    self.abandon();
                    return Err(InputClosed);
                }
            }
        }
        Ok(())
    }

    async fn connected(&self) -> Result<Arc<AsyncFd<OwnedFd>>, InputClosed> {
        loop {
            let changed = self.changed.notified();
            match &*self.lock() {
                State::Open(fd) => return Ok(Arc::clone(fd)),
                State::Closed => return Err(InputClosed),
                State::Unconnected { .. } => {}
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
