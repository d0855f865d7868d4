//! One connection: request heads out, response heads and framed bodies in.
//!
//! Bodies follow RFC 9112: nothing for HEAD, 1xx, 204 and 304; chunked; a length; else until the peer closes.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::hijack::Hijacked;

const HEAD_BYTES_MAX: u64 = 64 << 10;
const LINE_BYTES_MAX: u64 = 8 << 10;
const CHUNK_BYTES: usize = 256 << 10;
/// Hexadecimal digits of a chunk's size with the line's end.
const SIZE_LINE_BYTES: usize = 18;

/// A connected socket with its read buffer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    registry_auth: Option<String>,
}

/// Why a chunked upload stopped; `is_ours`: reading the source failed, not the socket.
#[derive(Debug)]
pub(crate) struct UploadError {
    pub(crate) is_ours: bool,
    pub(crate) source: io::Error,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::with_capacity(32 << 10, stream), registry_auth: None }
    }

    pub(crate) fn with_registry_auth(self, registry_auth: Option<String>) -> Self {
        Self { registry_auth, ..self }
    }

    /// Further header lines of every request on this connection.
    fn extra(&self) -> String {
        self.registry_auth.as_ref().map(|value| format!("X-Registry-Auth: {value}\r\n")).unwrap_or_default()
    }

    /// `content`: type and length; no length means chunked. `upgrade` asks for a raw stream.
    pub(crate) fn write_head(
        &mut self,
        method: &str,
        target: &str,
        content: Option<(&str, Option<usize>)>,
        upgrade: bool,
    ) -> io::Result<()> {
        let head = head(method, target, content, upgrade, &self.extra());
        self.write_all(head.as_bytes())
    }

    /// Head and JSON body in one write.
    pub(crate) fn write_request(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<()> {
        let content = Some(("application/json", Some(body.len())));
        let mut bytes = head(method, target, content, false, &self.extra()).into_bytes();
        bytes.extend_from_slice(body);
        self.write_all(&bytes)
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn write_chunked(&mut self, source: &mut dyn Read) -> Result<(), UploadError> {
        // Size line, data and line end are one write.
        let mut buffer = vec![0; SIZE_LINE_BYTES + CHUNK_BYTES + 2];
        loop {
            let length = match source.read(&mut buffer[SIZE_LINE_BYTES..SIZE_LINE_BYTES + CHUNK_BYTES]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(UploadError { is_ours: true, source }),
            };
            let line = format!("{length:x}\r\n");
            let start = SIZE_LINE_BYTES - line.len();
            let end = SIZE_LINE_BYTES + length;
            buffer[start..SIZE_LINE_BYTES].copy_from_slice(line.as_bytes());
            buffer[end..end + 2].copy_from_slice(b"\r\n");
            self.write_all(&buffer[start..end + 2]).map_err(|source| UploadError { is_ours: false, source })?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Reads one response head; 100 and 103 are skipped.
    pub(crate) fn read_response(mut self, is_head: bool) -> io::Result<Response> {
        loop {
            let (status, headers) = read_head(&mut self.stream)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let body = framing(status, &headers, is_head)?;
            return Ok(Response { status, headers, body, connection: self });
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<u8>, UnixStream) {
        let early = self.stream.buffer().to_vec();
        (early, self.stream.into_inner())
    }
}

fn head(method: &str, target: &str, content: Option<(&str, Option<usize>)>, upgrade: bool, extra: &str) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: berth\r\nUser-Agent: berth\r\n");
    match content {
        None if method == "POST" || method == "PUT" => head.push_str("Content-Length: 0\r\n"),
        None => {}
        Some((kind, None)) => {
            write!(head, "Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n").expect("a String takes any write");
        }
        Some((kind, Some(length))) => {
            write!(head, "Content-Type: {kind}\r\nContent-Length: {length}\r\n").expect("a String takes any write");
        }
    }
    if upgrade {
        head.push_str("Connection: Upgrade\r\nUpgrade: tcp\r\n");
    }
    head.push_str(extra);
    head.push_str("\r\n");
    head
}

type Headers = Vec<(String, String)>;

fn read_head(stream: &mut impl BufRead) -> io::Result<(u16, Headers)> {
    let mut limited = stream.take(HEAD_BYTES_MAX);
    let first = read_line(&mut limited)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse::<u16>().ok())
        .filter(|code| (100..600).contains(code))
        .ok_or_else(|| malformed(&format!("status line {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(&mut limited)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&format!("header line {line:?}")))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed before the answer"));
    }
    if line.pop() != Some(b'\n') {
        return Err(malformed("a line that is too long or cut short"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| malformed("a header that is not text"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP/1.1: {what}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Empty,
    Length(u64),
    /// Bytes left in the chunk at hand; `None` before its size line.
    Chunked(Option<u64>),
    UntilClose,
}

fn framing(status: u16, headers: &Headers, is_head: bool) -> io::Result<Body> {
    if is_head || status == 204 || status == 304 {
        return Ok(Body::Empty);
    }
    if status == 101 {
        return Ok(Body::UntilClose);
    }
    let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(Body::Chunked(None));
    }
    match find("content-length") {
        Some(length) => length.parse().map(Body::Length).map_err(|_| malformed(&format!("content length {length:?}"))),
        None => Ok(Body::UntilClose),
    }
}

/// An answer whose body is read from the connection as it comes.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Headers,
    body: Body,
    connection: Connection,
}

impl Response {
    /// `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The peer's version when it refused a newer `asked` one.
    pub(super) fn older_version(&self, asked: &str) -> Option<String> {
        let number = |text: &str| -> Option<(u32, u32)> {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let theirs = self.header("api-version").filter(|_| self.status == 400)?;
        (number(theirs)? < number(asked)?).then(|| theirs.to_owned())
    }

    /// The connection, when the body was read to its end and the peer keeps it open.
    pub(super) fn into_reusable(self) -> Option<Connection> {
        let closes = self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        (self.body == Body::Empty && !closes).then_some(self.connection)
    }

    pub(super) fn into_hijacked(self) -> Hijacked {
        let (early, stream) = self.connection.into_parts();
        Hijacked::new(early, stream)
    }

    /// A second handle of the socket, to wait for it or to shut it down from another thread.
    pub(crate) fn socket(&self) -> io::Result<UnixStream> {
        self.connection.stream.get_ref().try_clone()
    }

    fn read_chunked(&mut self, left: Option<u64>, out: &mut [u8]) -> io::Result<usize> {
        let left = match left {
            Some(left) => left,
            None => {
                let line = read_line(&mut self.connection.stream)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                u64::from_str_radix(size, 16).map_err(|_| malformed(&format!("chunk size {line:?}")))?
            }
        };
        if left == 0 {
            while !read_line(&mut self.connection.stream)?.is_empty() {}
            self.body = Body::Empty;
            return Ok(0);
        }
        let length = read_at_most(&mut self.connection.stream, left, out)?;
        let left = left - length as u64;
        self.body = Body::Chunked(Some(left));
        if left == 0 {
            if !read_line(&mut self.connection.stream)?.is_empty() {
                return Err(malformed("a chunk longer than its size"));
            }
            self.body = Body::Chunked(None);
        }
        Ok(length)
    }
}

/// Reads up to `left` bytes; an early end is an error.
fn read_at_most(stream: &mut impl Read, left: u64, out: &mut [u8]) -> io::Result<usize> {
    let want = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
    match stream.read(&mut out[..want])? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended in the middle")),
        length => Ok(length),
    }
}

impl Response {
    /// Bytes of its body, as far as the head tells and memory is given on a word.
    pub(crate) fn length_hint(&self) -> usize {
        const HINT_MAX: u64 = 4 << 20;
        match self.body {
            // One more: the end is read without growing.
            Body::Length(length) => usize::try_from(length.min(HINT_MAX)).unwrap_or_default() + 1,
            Body::Empty | Body::Chunked(_) | Body::UntilClose => 0,
        }
    }
}

impl Read for Response {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match self.body {
            Body::Empty => Ok(0),
            Body::Length(0) => {
                self.body = Body::Empty;
                Ok(0)
            }
            Body::Length(left) => {
                let length = read_at_most(&mut self.connection.stream, left, out)?;
                self.body = Body::Length(left - length as u64);
                Ok(length)
            }
            Body::Chunked(left) => self.read_chunked(left, out),
            Body::UntilClose => self.connection.stream.read(out),
        }
    }
}
