//! An interactive session: stdin, stdout, stderr, terminal and signals of one process in a container.
//!
//! Threads, so that a slow reader of our stdout stops neither signals nor stdin:
//! main: stream -> stdout/stderr · `stdin`: stdin -> stream · `signals`: signalfd -> `POST .../kill` and terminal resizes.
//! Signals are blocked before the threads start, so none is lost and none takes its default action.

mod demultiplex;
mod detach_keys;
mod signals;
mod terminal;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use demultiplex::demultiplex;
pub(crate) use detach_keys::DetachKeys;
pub(crate) use signals::{Proxy, SignalThread, Subject, resize};
pub(crate) use terminal::{RawTerminal, window_size, without_echo};

use crate::client::Hijacked;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

const BUFFER_BYTES: usize = 32 << 10;

/// How the stream is to be treated.
#[derive(Debug)]
pub(crate) struct Pump {
    /// Our stdin goes to the process.
    pub(crate) stdin: bool,
    /// The process has a terminal: one raw stream.
    pub(crate) tty: bool,
    pub(crate) detach_keys: DetachKeys,
}

/// How the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Closed,
    /// The detach keys were typed before it closed.
    MaybeDetached,
}

impl Pump {
    /// Moves bytes until the daemon closes the stream. `out` must be flushed.
    pub(crate) fn run(self, mut stream: Hijacked, out: &mut Output) -> Outcome<StreamEnd> {
        let was_typed = Arc::new(AtomicBool::new(false));
        if self.stdin {
            let writer = stream.writer()?;
            let was_typed = Arc::clone(&was_typed);
            let keys = self.detach_keys;
            std::thread::Builder::new()
                .name("stdin".to_owned())
                .spawn(move || forward_stdin(writer, keys, &was_typed))
                .map_err(|error| Failure::new("cannot start the stdin thread").because(&error))?;
        }
        // By the process, not by the content type: daemons before API 1.42 call both kinds raw.
        if self.tty {
            copy_raw(&mut stream, out)?;
        } else {
            demultiplex(&mut stream, out)?;
        }
        Ok(if was_typed.load(Ordering::Acquire) { StreamEnd::MaybeDetached } else { StreamEnd::Closed })
    }
}

/// Ends with stdin (then half-closes the stream), or when the daemon stops taking bytes.
fn forward_stdin(mut writer: UnixStream, mut keys: DetachKeys, was_typed: &AtomicBool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let stdin = rustix::stdio::stdin();
    loop {
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if keys.feed(&buffer[..length]) {
                    was_typed.store(true, Ordering::Release);
                }
                if writer.write_all(&buffer[..length]).is_err() {
                    return; // the process is gone; the main thread sees the end
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    // When the peer has closed already there is nothing left to half-close.
    drop(writer.shutdown(Shutdown::Write));
}

fn copy_raw(stream: &mut impl Read, out: &mut Output) -> Outcome<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                out.write(&buffer[..length])?;
                out.flush()?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(Failure::new("lost the container's output").because(&error)),
        }
    }
}
