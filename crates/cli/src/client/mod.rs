//! A small blocking HTTP/1.1 client for the Docker Engine API over one unix socket.
//!
//! Not a general HTTP client: no TLS, no redirects, no proxies, no pipelining. Requests go out on one kept-alive connection;
//! streams and hijacked connections take a connection of their own. Heads and error bodies are bounded; data streams are not.

mod address;
mod connection;
mod daemon_start;
mod hijack;
mod message;
mod query;

#[cfg(test)]
mod tests;

use std::io::{self, Read};

use serde_json::Value;

pub(crate) use address::Address;
pub(crate) use connection::{Connection, Response};
pub(crate) use daemon_start::find_daemon;
pub(crate) use hijack::Hijacked;
pub(crate) use message::JsonLines;
pub(crate) use query::Query;

use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// The API version asked for; an older daemon answers with its own and we follow.
const API_VERSION: &str = "1.51";
/// The largest JSON answer we hold in memory.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
const ERROR_BYTES_MAX: u64 = 1 << 20;

/// What a request carries.
pub(crate) enum Payload<'a> {
    Nothing,
    Json(Value),
    /// Bytes of unknown length, sent chunked; content type.
    Stream(&'a mut dyn Read, &'static str),
}

/// Speaks to one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    version: String,
    /// The daemon has answered a request of this version.
    is_version_known: bool,
    is_debug: bool,
    idle: Option<Connection>,
    /// `X-Registry-Auth` of requests that concern a registry.
    registry_auth: Option<String>,
}

/// Reads an answer.
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(method: &str, path: &str, bytes: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(format!("the daemon's answer to {method} {path} is not what it should be")).because(&error)
    })
}

impl Client {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            version: API_VERSION.to_owned(),
            is_version_known: false,
            is_debug: false,
            idle: None,
            registry_auth: None,
        }
    }

    /// Names each request on stderr.
    pub(crate) fn set_debug(&mut self, is_debug: bool) {
        self.is_debug = is_debug;
    }

    /// Credentials that go with every further request; they never leave for more than the daemon.
    pub(crate) fn set_registry_auth(&mut self, header: Option<String>) {
        self.registry_auth = header;
        self.idle = None;
    }

    /// The version this client asked for, before any answer lowered it.
    pub(crate) const fn wanted_version() -> &'static str {
        API_VERSION
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A long answer, to be read with [`parse`] by types that borrow from it.
    pub(crate) fn get_bytes(&mut self, path: &str) -> Outcome<Vec<u8>> {
        self.call_bytes("GET", path, Payload::Nothing)
    }

    pub(crate) fn get(&mut self, path: &str) -> Outcome<Value> {
        self.call("GET", path, Payload::Nothing)
    }

    pub(crate) fn post(&mut self, path: &str, body: Option<Value>) -> Outcome<Value> {
        self.call("POST", path, body.map_or(Payload::Nothing, Payload::Json))
    }

    pub(crate) fn delete(&mut self, path: &str) -> Outcome<Value> {
        self.call("DELETE", path, Payload::Nothing)
    }

    /// Sends, checks the status and reads the whole answer; an empty one is `Null`.
    pub(crate) fn call(&mut self, method: &str, path: &str, payload: Payload<'_>) -> Outcome<Value> {
        let bytes = self.call_bytes(method, path, payload)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        parse(method, path, &bytes)
    }

    /// Like [`Self::call`], but the bytes as they came.
    pub(crate) fn call_bytes(&mut self, method: &str, path: &str, payload: Payload<'_>) -> Outcome<Vec<u8>> {
        if matches!(payload, Payload::Stream(..)) {
            self.learn_version()?;
        }
        let connection = match self.idle.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let mut response = self.send(connection, method, path, payload)?;
        let mut bytes = Vec::with_capacity(response.length_hint());
        response
            .by_ref()
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| self.lost(method, path, &error))?;
        self.idle = response.into_reusable();
        Ok(bytes)
    }

    /// Sends on a connection of its own and returns the answer as a stream, its status checked.
    pub(crate) fn stream(&mut self, method: &str, path: &str, payload: Payload<'_>) -> Outcome<Response> {
        if matches!(payload, Payload::Stream(..)) {
            self.learn_version()?;
        }
        let connection = self.connect()?;
        self.send(connection, method, path, payload)
    }

    /// Asks once before what cannot be sent twice: an older daemon refuses a newer version.
    fn learn_version(&mut self) -> Outcome<()> {
        if self.is_version_known {
            return Ok(());
        }
        self.call_bytes("GET", "/_ping", Payload::Nothing).map(drop)
    }

    /// Only sends, so that several requests can be under way at once; the answer comes from [`Self::finish`].
    pub(crate) fn begin(&mut self, method: &str, path: &str) -> Outcome<Pending> {
        let mut connection = self.connect()?;
        let target = self.target(method, path);
        connection.write_head(method, &target, None, false).map_err(|error| self.lost(method, path, &error))?;
        Ok(Pending { connection, method: method.to_owned(), path: path.to_owned() })
    }

    /// Waits for the head of the answer to a request sent by [`Self::begin`].
    pub(crate) fn finish(&mut self, pending: Pending) -> Outcome<Response> {
        let Pending { connection, method, path } = pending;
        let response = connection.read_response(false).map_err(|error| self.lost(&method, &path, &error))?;
        if response.status >= 400 { Err(refusal(response)) } else { Ok(response) }
    }

    /// Headers of a `HEAD` answer; the status is checked.
    pub(crate) fn head(&mut self, path: &str) -> Outcome<Response> {
        self.learn_version()?;
        let mut connection = self.connect()?;
        let target = self.target("HEAD", path);
        connection.write_head("HEAD", &target, None, false).map_err(|error| self.lost("HEAD", path, &error))?;
        let response = connection.read_response(true).map_err(|error| self.lost("HEAD", path, &error))?;
        if response.status >= 400 {
            let status = response.status;
            return Err(Failure { status, ..Failure::new(format!("the daemon answered {status} to HEAD {path}")) });
        }
        Ok(response)
    }

    /// Upgrades a connection to a raw byte stream (attach, exec).
    pub(crate) fn hijack(&mut self, path: &str, body: Option<&Value>) -> Outcome<Hijacked> {
        let mut connection = self.connect()?;
        let target = self.target("POST", path);
        let body = body.map(Value::to_string).unwrap_or_default();
        connection
            .write_head("POST", &target, Some(("application/json", Some(body.len()))), true)
            .and_then(|()| connection.write_all(body.as_bytes()))
            .map_err(|error| self.lost("POST", path, &error))?;
        let response = connection.read_response(false).map_err(|error| self.lost("POST", path, &error))?;
        if response.status >= 400 {
            return Err(refusal(response));
        }
        Ok(response.into_hijacked())
    }

    fn send(
        &mut self,
        connection: Connection,
        method: &str,
        path: &str,
        mut payload: Payload<'_>,
    ) -> Outcome<Response> {
        let response = self.exchange(connection, method, path, &mut payload)?;
        if response.status != 400 {
            self.is_version_known = true;
        }
        if response.status < 400 {
            return Ok(response);
        }
        let is_repeatable = !matches!(payload, Payload::Stream(..));
        let Some(version) = response.older_version(&self.version).filter(|_| is_repeatable) else {
            return Err(refusal(response));
        };
        self.version = version;
        self.is_version_known = true;
        let connection = self.connect()?;
        let response = self.exchange(connection, method, path, &mut payload)?;
        if response.status >= 400 { Err(refusal(response)) } else { Ok(response) }
    }

    fn exchange(
        &self,
        mut connection: Connection,
        method: &str,
        path: &str,
        payload: &mut Payload<'_>,
    ) -> Outcome<Response> {
        let target = self.target(method, path);
        let sent = match payload {
            Payload::Nothing => connection.write_head(method, &target, None, false),
            Payload::Json(value) => {
                let body = value.to_string();
                connection.write_request(method, &target, body.as_bytes())
            }
            Payload::Stream(reader, content_type) => {
                connection.write_head(method, &target, Some((content_type, None)), false)?;
                match connection.write_chunked(*reader) {
                    // A daemon that refuses early stops reading; its answer says why.
                    Err(error) if error.is_ours => {
                        return Err(Failure::new("cannot read what is to be sent").because(&error.source));
                    }
                    _ => Ok(()),
                }
            }
        };
        sent.and_then(|()| connection.read_response(false)).map_err(|error| self.lost(method, path, &error))
    }

    fn target(&self, method: &str, path: &str) -> String {
        let target = format!("/v{}{path}", self.version);
        if self.is_debug {
            Output::error_bytes(format!("debug: {method} {target}\n").as_bytes());
        }
        target
    }

    fn connect(&self) -> Outcome<Connection> {
        let auth = self.registry_auth.clone();
        daemon_start::connect(&self.address).map(|stream| Connection::new(stream).with_registry_auth(auth))
    }

    fn lost(&self, method: &str, path: &str, error: &io::Error) -> Failure {
        let path = path.split('?').next().unwrap_or(path);
        Failure::new(format!("lost the daemon at {} while it answered {method} {path}", self.address)).because(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new("cannot speak to the daemon").because(&error)
    }
}

/// A request whose answer has not been read.
#[derive(Debug)]
pub(crate) struct Pending {
    connection: Connection,
    method: String,
    path: String,
}

/// Turns an answer of 400 or more into a failure: Docker's `message`, our `berth` object beside it.
fn refusal(mut response: Response) -> Failure {
    let status = response.status;
    let mut body = Vec::new();
    let read = response.by_ref().take(ERROR_BYTES_MAX).read_to_end(&mut body);
    let json = serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null);
    let text = |value: &Value| value.as_str().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let message = text(&json["message"]).unwrap_or_else(|| {
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        if body.is_empty() { format!("the daemon answered with status {status}") } else { body }
    });
    let mut failure = Failure { status, ..Failure::new(message) };
    if let Err(error) = read {
        failure = failure.because(&error);
    }
    let ours = &json["berth"];
    if let Some(reasons) = ours["because"].as_array() {
        failure.because.extend(reasons.iter().filter_map(text));
    }
    failure.hint = text(&ours["hint"]);
    if let Some(code) = ours["exit_code"].as_u64().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0) {
        failure.exit_code = code;
    }
    failure
}
