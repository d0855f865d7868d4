//! One receiver of output with a bounded queue: an attached client, or a FIFO or file of another engine.
//!
//! Bytes go straight to the descriptor while it takes them; only what it does not take is queued, and a job that empties the
//! queue exists only as long as there is something in it. Frames are queued whole, so a stream is never cut inside one.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Stream;

/// Queued bytes at which the process has to wait.
pub(crate) const QUEUE_BYTES: usize = 1 << 20;
/// How long a client may take nothing while its queue is full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The same once the process has ended: nobody waits for the client any more, only this shim's memory does.
const LINGER_PATIENCE: Duration = Duration::from_secs(600);

/// What a receiver gets, and how long it is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Docker's multiplexed stream: 8 bytes (stream, 0, 0, 0, length big endian) before each piece.
    pub(crate) framed: bool,
    /// Waited for without limit: as other engines expect of their FIFOs.
    pub(crate) patient: bool,
}

/// Counts outlets that still have something to deliver; a shim ends only when there are none.
#[derive(Debug, Default)]
pub(crate) struct OpenOutlets {
    count: AtomicUsize,
    fewer: Notify,
}

impl OpenOutlets {
    pub(crate) async fn none_left(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            fewer.await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outlet {
    fd: AsyncFd<OwnedFd>,
    manner: Manner,
    state: Mutex<State>,
    /// The queue got shorter or full, or the outlet closed.
    changed: Notify,
    open: Arc<OpenOutlets>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<u8>,
    /// A job is emptying the queue.
    is_emptying: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more output will come; closes when the queue is empty.
    Finishing,
    Closed,
}

impl Outlet {
    pub(crate) fn new(fd: AsyncFd<OwnedFd>, manner: Manner, open: &Arc<OpenOutlets>) -> Arc<Self> {
        open.count.fetch_add(1, Ordering::AcqRel);
        let state = State { queue: VecDeque::new(), is_emptying: false, phase: Phase::Open };
        Arc::new(Self { fd, manner, state: Mutex::new(state), changed: Notify::new(), open: Arc::clone(open) })
    }

    pub(crate) fn descriptor(&self) -> &AsyncFd<OwnedFd> {
        &self.fd
    }

    pub(crate) const fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.manner.stdout,
            Stream::Stderr => self.manner.stderr,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().phase == Phase::Closed
    }

    /// Delivers or queues one piece of output.
    pub(crate) fn push(self: &Arc<Self>, stream: Stream, data: &[u8]) {
        let header = self.header(stream, data.len());
        let header = header.as_ref().map_or(&[][..], |h| &h[..]);
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let mut taken = 0;
        if state.queue.is_empty() {
            match retry(|| rustix::io::writev(self.fd.get_ref(), &[IoSlice::new(header), IoSlice::new(data)])) {
                Ok(written) => taken = written,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => return self.close(&mut state),
            }
        }
        let header_left = header.get(taken..).unwrap_or_default();
        let data_left = data.get(taken.saturating_sub(header.len())..).unwrap_or_default();
        state.queue.extend(header_left);
        state.queue.extend(data_left);
        self.after_queueing(&mut state);
    }

    /// No more output will come. The stream is closed once everything is delivered.
    pub(crate) fn finish(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
            if state.queue.is_empty() {
                self.close(&mut state);
            }
            self.changed.notify_waiters();
        }
    }

    /// Gives up what is queued.
    pub(crate) fn abandon(&self) {
        self.close(&mut self.lock());
    }

    /// Returns when the queue has room or the outlet is closed.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.queue.len() < QUEUE_BYTES || state.phase != Phase::Open {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Bytes queued and in the FIFO, which its reader does not have yet; `None` when this is no FIFO for output.
    pub(crate) fn underway(&self) -> Option<u64> {
        let is_fifo = self.manner.patient && (self.manner.stdout || self.manner.stderr);
        let state = self.lock();
        (is_fifo && state.phase != Phase::Closed).then(|| state.queue.len() as u64 + super::unread(self.fd.get_ref()))
    }

    /// Returns when the stream is closed.
    pub(crate) async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_closed() {
                return;
            }
            changed.await;
        }
    }

    fn header(&self, stream: Stream, len: usize) -> Option<[u8; 8]> {
        self.manner.framed.then(|| {
            let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
            let number = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            [number, 0, 0, 0, a, b, c, d]
        })
    }

    fn after_queueing(self: &Arc<Self>, state: &mut State) {
        if state.queue.is_empty() {
            return;
        }
        if state.queue.len() >= QUEUE_BYTES {
            self.changed.notify_waiters();
        }
        if !state.is_emptying {
            state.is_emptying = true;
            tokio::spawn(Arc::clone(self).empty_queue());
        }
    }

    /// The job behind a queue. Ends when it is empty or the outlet closed.
    async fn empty_queue(self: Arc<Self>) {
        let mut last_progress = Instant::now();
        loop {
            let changed = self.changed.notified();
            match self.write_some() {
                Written::All => return,
                Written::Some => {
                    last_progress = Instant::now();
                    continue;
                }
                Written::Nothing => {}
            }
            let deadline = self.patience().map(|patience| last_progress + patience);
            tokio::select! {
                ready = self.fd.writable() => match ready {
                    // The flag is only a hint here: `write_some` found the descriptor full.
                    Ok(mut guard) if !guard.ready().is_write_closed() => guard.clear_ready_matching(Ready::WRITABLE),
                    _ => self.probe(),
                },
                () = changed => {}
                () = until(deadline) => self.abandon(),
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        let state = self.lock();
        match state.phase {
            _ if self.manner.patient => None,
            Phase::Open => (state.queue.len() >= QUEUE_BYTES).then_some(PATIENCE),
            Phase::Finishing | Phase::Closed => Some(LINGER_PATIENCE),
        }
    }

    /// The other side is gone: one more write says so (and closes), unless it took the bytes after all.
    fn probe(&self) {
        if matches!(self.write_some(), Written::Nothing) {
            self.abandon();
        }
    }

    fn write_some(&self) -> Written {
        let mut state = self.lock();
        let (first, second) = state.queue.as_slices();
        match retry(|| rustix::io::writev(self.fd.get_ref(), &[IoSlice::new(first), IoSlice::new(second)])) {
            _ if state.phase == Phase::Closed => Written::All,
            Ok(written) => {
                state.queue.drain(..written);
                self.changed.notify_waiters();
                if !state.queue.is_empty() {
                    return Written::Some;
                }
                // Memory goes back too: a queue may have grown to a mebibyte.
                state.queue = VecDeque::new();
                state.is_emptying = false;
                if state.phase == Phase::Finishing {
                    self.close(&mut state);
                }
                Written::All
            }
            Err(rustix::io::Errno::AGAIN) => Written::Nothing,
            Err(_) => {
                self.close(&mut state);
                Written::All
            }
        }
    }

    /// Ends our part and leaves the stream open for somebody else who holds it and has something to say.
    pub(crate) fn let_go(&self) {
        self.forget(&mut self.lock());
    }

    fn close(&self, state: &mut State) {
        if state.phase == Phase::Closed {
            return;
        }
        // Others may hold the stream too (a daemon that has not closed its copy yet): the end must still be seen.
        // What is no socket (FIFO, file) refuses, and ends when its descriptor is closed.
        rustix::net::shutdown(self.fd.get_ref(), Shutdown::Write).ok();
        self.forget(state);
    }

    fn forget(&self, state: &mut State) {
        if state.phase == Phase::Closed {
            return;
        }
        state.phase = Phase::Closed;
        state.queue = VecDeque::new();
        self.changed.notify_waiters();
        self.open.count.fetch_sub(1, Ordering::AcqRel);
        self.open.fewer.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Outlet {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().queue.len()
    }
}

enum Written {
    All,
    Some,
    Nothing,
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(call)
}

/// A descriptor that a receiver hands over may be anything readable by us; it must not block us.
pub(crate) fn prepare(fd: OwnedFd, interest: tokio::io::Interest) -> io::Result<AsyncFd<OwnedFd>> {
    super::set_nonblocking(&fd)?;
    super::watch(fd, interest)
}
