//! The socket: letting ourselves in, calls and their replies, signals that arrive meanwhile.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::DbusError;
use super::message::{self, HEAD, Kind, Message, Target};
use super::wire::Encoder;

const BUS: &str = "org.freedesktop.DBus";
/// Signals kept while we wait for something else.
const SIGNALS_MAX: usize = 4096;

/// A method call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'static str,
    pub(crate) signature: &'static str,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    socket: PathBuf,
    serial: u32,
    /// Those of the member asked for at the start.
    signals: VecDeque<Message>,
    signal: &'static str,
    begun: Instant,
    timeout: Duration,
}

impl Connection {
    /// Connects to a service's own socket. Everything done with the connection shares one `timeout` from now on. Signals of the
    /// member `signal` are kept for [`Connection::next_signal`].
    pub(crate) fn direct(socket: &Path, signal: &'static str, timeout: Duration) -> Result<Self, DbusError> {
        let begun = Instant::now();
        let fail = |source| DbusError::Connect { socket: socket.to_owned(), source };
        let stream = connect(socket, timeout).map_err(fail)?;
        let socket = socket.to_owned();
        let mut this = Self { stream, socket, serial: 0, signals: VecDeque::new(), signal, begun, timeout };
        this.authenticate()?;
        Ok(this)
    }

    /// Connects to a message bus; see [`Connection::direct`].
    pub(crate) fn bus(socket: &Path, signal: &'static str, timeout: Duration) -> Result<Self, DbusError> {
        let mut this = Self::direct(socket, signal, timeout)?;
        let path = "/org/freedesktop/DBus";
        let hello = Call { destination: BUS, path, interface: BUS, member: "Hello", signature: "" };
        this.call(&hello, |_| ())?;
        Ok(this)
    }

    /// Asks a bus to hand on the signals of one interface.
    pub(crate) fn add_match(&mut self, rule: &str) -> Result<(), DbusError> {
        let path = "/org/freedesktop/DBus";
        let call = Call { destination: BUS, path, interface: BUS, member: "AddMatch", signature: "s" };
        self.call(&call, |body| body.text(rule)).map(drop)
    }

    /// Calls a method and waits for its reply.
    pub(crate) fn call(&mut self, call: &Call<'_>, body: impl FnOnce(&mut Encoder)) -> Result<Message, DbusError> {
        let mut encoder = Encoder::default();
        body(&mut encoder);
        self.serial += 1;
        let serial = self.serial;
        let Call { destination, path, interface, member, signature } = *call;
        let target = Target { destination, path, interface, member };
        let bytes = message::call(serial, target, signature, &encoder.bytes);
        self.send(&bytes, member)?;
        loop {
            let message = self.receive(member)?;
            match message.kind {
                Kind::Return if message.reply_to == serial => return Ok(message),
                Kind::Error if message.reply_to == serial => {
                    let text = if message.signature.starts_with('s') { message.body().text() } else { None };
                    let text = text.unwrap_or_default().to_owned();
                    return Err(DbusError::Refused { member, name: message.error_name, message: text });
                }
                _ => self.keep(message)?,
            }
        }
    }

    /// The next of the signals asked for at the start; `awaited` says what for, should it not come.
    pub(crate) fn next_signal(&mut self, awaited: &str) -> Result<Message, DbusError> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive(awaited)?;
            self.keep(message)?;
        }
    }

    pub(crate) fn malformed(&self, problem: &'static str) -> DbusError {
        DbusError::Malformed { socket: self.socket.clone(), problem }
    }

    fn keep(&mut self, message: Message) -> Result<(), DbusError> {
        if message.kind == Kind::Signal && message.member == self.signal {
            if self.signals.len() >= SIGNALS_MAX {
                return Err(self.malformed("too many signals at once"));
            }
            self.signals.push_back(message);
        }
        Ok(())
    }

    /// SASL EXTERNAL: the kernel vouches for our uid.
    ///
    /// BEGIN goes along, as sd-bus does it. Sent after the answer, it may be read together with the first call, and then systemd
    /// waits for more while it holds that call (seen with 257).
    fn authenticate(&mut self) -> Result<(), DbusError> {
        const ANSWER_MAX: usize = 512;
        let awaited = "authentication";
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex = uid.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes everything");
            hex
        });
        self.send(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes(), awaited)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte, awaited)?;
            answer.extend(byte);
            if answer.len() > ANSWER_MAX {
                return Err(self.malformed("its answer to the authentication does not end"));
            }
        }
        if !answer.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
            return Err(DbusError::Authentication { socket: self.socket.clone(), answer });
        }
        Ok(())
    }

    fn receive(&mut self, awaited: &str) -> Result<Message, DbusError> {
        let mut head = [0; HEAD];
        self.fill(&mut head, awaited)?;
        let length = Message::total_length(&head).map_err(|problem| self.malformed(problem))?;
        let mut bytes = head.to_vec();
        bytes.resize(length, 0);
        let mut rest = bytes.split_off(HEAD);
        self.fill(&mut rest, awaited)?;
        bytes.extend(rest);
        Message::parse(&bytes).ok_or_else(|| self.malformed("its header is damaged"))
    }

    fn remaining(&self, awaited: &str) -> Result<Duration, DbusError> {
        let waited = self.begun.elapsed();
        let remaining = self.timeout.saturating_sub(waited);
        if remaining.is_zero() { Err(self.late(awaited)) } else { Ok(remaining) }
    }

    fn late(&self, awaited: &str) -> DbusError {
        let (socket, awaited) = (self.socket.clone(), awaited.to_owned());
        DbusError::Deadline { socket, awaited, waited: self.begun.elapsed() }
    }

    fn fill(&mut self, buffer: &mut [u8], awaited: &str) -> Result<(), DbusError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let remaining = self.remaining(awaited)?;
            let read = self.stream.set_read_timeout(Some(remaining));
            match read.and_then(|()| self.stream.read(&mut buffer[filled..])) {
                Ok(0) => {
                    return Err(DbusError::Closed { socket: self.socket.clone(), awaited: awaited.to_owned() });
                }
                Ok(count) => filled += count,
                Err(error) => self.survivable(error, "read from", awaited)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8], awaited: &str) -> Result<(), DbusError> {
        while !bytes.is_empty() {
            let remaining = self.remaining(awaited)?;
            let sent = self.stream.set_write_timeout(Some(remaining));
            match sent.and_then(|()| self.stream.write(bytes)) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.survivable(error, "write to", awaited)?,
            }
        }
        Ok(())
    }

    /// Nothing for an interrupted call, else the error it is.
    fn survivable(&self, error: io::Error, what: &'static str, awaited: &str) -> Result<(), DbusError> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(self.late(awaited)),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Err(DbusError::Closed { socket: self.socket.clone(), awaited: awaited.to_owned() })
            }
            _ => Err(DbusError::Transfer { what, socket: self.socket.clone(), source: error }),
        }
    }
}

/// A service that does not accept must not hold us up: the send timeout bounds connect(2), see unix(7).
fn connect(socket: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&fd, Timeout::Send, Some(timeout))?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    Ok(UnixStream::from(fd))
}
