//! Signals that reach us while a session runs: sent on to the container, turned into terminal sizes, or ending the session.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use berth_sys::signal_fd::SignalFd;
use berth_types::Signal;

use super::window_size;
use crate::client::{Address, Client, Query};
use crate::failure::{Failure, Outcome};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGWINCH: i32 = 28;
/// Not blocked: KILL and STOP cannot be; CHLD, PIPE and URG are our own; faults must end us.
const NEVER_TAKEN: [i32; 10] = [4, 5, 7, 8, 9, 11, 13, 17, 19, 23];
/// So many INT or TERM that the daemon did not take end the session.
const IMPATIENCE: u32 = 3;

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Goes to the container's first process.
    Forward,
    /// HUP, INT and TERM end the session; the process lives on.
    End,
}

/// What the session is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Container(String),
    Exec(String),
}

impl Subject {
    fn path(&self) -> String {
        match self {
            Self::Container(id) => format!("/containers/{}", Query::segment(id)),
            Self::Exec(id) => format!("/exec/{}", Query::segment(id)),
        }
    }
}

/// The thread's handle: sockets to close when the session must end.
#[derive(Debug)]
pub(crate) struct SignalThread {
    sockets: Arc<Mutex<Vec<UnixStream>>>,
    was_ended: Arc<AtomicBool>,
}

impl SignalThread {
    /// Blocks the signals in this thread and starts the one that reads them. Call before other threads start.
    pub(crate) fn start(address: &Address, subject: Subject, proxy: Proxy, tty: bool) -> Outcome<Self> {
        let taken: Vec<i32> = match proxy {
            Proxy::Forward => {
                (1..=64).filter(|number| !NEVER_TAKEN.contains(number)).filter(|n| *n < 32 || *n > 33).collect()
            }
            Proxy::End if tty => vec![1, SIGINT, SIGTERM, SIGWINCH],
            Proxy::End => Vec::new(),
        };
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let was_ended = Arc::new(AtomicBool::new(false));
        let handle = Self { sockets: Arc::clone(&sockets), was_ended: Arc::clone(&was_ended) };
        if taken.is_empty() {
            return Ok(handle); // default actions
        }
        let signals =
            SignalFd::block(&taken).map_err(|errno| Failure::new("cannot take over signals").because(&errno))?;
        let client = Client::new(address.clone());
        let worker = Worker { signals, client, subject, proxy, tty, sockets, was_ended, impatience: 0 };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Failure::new("cannot start the signal thread").because(&error))?;
        Ok(handle)
    }

    /// Closed when the session must end.
    pub(crate) fn guard(&self, socket: UnixStream) {
        if let Ok(mut sockets) = self.sockets.lock() {
            sockets.push(socket);
        }
    }

    pub(crate) fn was_ended(&self) -> bool {
        self.was_ended.load(Ordering::Acquire)
    }
}

struct Worker {
    signals: SignalFd,
    client: Client,
    subject: Subject,
    proxy: Proxy,
    tty: bool,
    sockets: Arc<Mutex<Vec<UnixStream>>>,
    was_ended: Arc<AtomicBool>,
    impatience: u32,
}

impl Worker {
    fn run(mut self) {
        while let Ok(number) = self.signals.next() {
            match (number, self.proxy) {
                (SIGWINCH, _) if self.tty => resize(&mut self.client, &self.subject),
                (SIGWINCH, Proxy::End) => {}
                (_, Proxy::End) => self.end(),
                (_, Proxy::Forward) => self.forward(number),
            }
        }
    }

    fn forward(&mut self, number: i32) {
        let Ok(signal) = Signal::new(number) else { return };
        let path = Query::new(format!("{}/kill", self.subject.path())).with("signal", &signal.number().to_string());
        let is_taken = self.client.post(&path.build(), None).is_ok();
        if is_taken || !matches!(number, SIGINT | SIGTERM) {
            self.impatience = 0;
            return;
        }
        self.impatience += 1;
        if self.impatience >= IMPATIENCE {
            self.end();
        }
    }

    /// Wakes the main thread: its reads end.
    fn end(&self) {
        self.was_ended.store(true, Ordering::Release);
        if let Ok(sockets) = self.sockets.lock() {
            for socket in sockets.iter() {
                // Already closed is as good.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
    }
}

/// Tells the daemon our terminal's size; a process that is gone has none.
pub(crate) fn resize(client: &mut Client, subject: &Subject) {
    if let Some((rows, columns)) = window_size() {
        let path = Query::new(format!("{}/resize", subject.path()))
            .with("h", &rows.to_string())
            .with("w", &columns.to_string());
        drop(client.post(&path.build(), None));
    }
}
