//! Taking a connection over: after `101 Switching Protocols` the stream's descriptor leaves HTTP and goes to the shim.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::error::{ApiError, ApiResult};

pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// A stream that is no longer HTTP's, and what HTTP had already read from it.
#[derive(Debug)]
pub(crate) struct Hijacked {
    pub(crate) stream: OwnedFd,
    pub(crate) early_input: Vec<u8>,
}

/// # Errors
/// `InvalidArgument` when the client did not ask for an upgrade; without one HTTP/1.1 cannot hand the connection over.
pub(crate) fn require_upgrade(headers: &HeaderMap) -> ApiResult<()> {
    if headers.contains_key(header::UPGRADE) {
        return Ok(());
    }
    Err(ApiError::invalid("this endpoint takes the connection over; send \"Connection: Upgrade\" and \"Upgrade: tcp\""))
}

pub(crate) fn switching_protocols(content_type: &'static str) -> Response {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::empty())
        .expect("constant headers are valid")
}

/// Waits until the 101 is out and takes the descriptor. `None` when the client went away meanwhile.
pub(crate) async fn take(upgrade: OnUpgrade) -> Option<Hijacked> {
    let upgraded: Upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
    let stream = parts.io.into_inner().into_std().ok()?;
    Some(Hijacked { stream: OwnedFd::from(stream), early_input: parts.read_buf.to_vec() })
}

/// Writes an error into a hijacked stream whose 101 has gone out, as Docker does: the only way left to tell the client.
pub(crate) fn tell(stream: OwnedFd, has_terminal: bool, message: &str) {
    let text = format!("{message}\r\n");
    let mut stream = StdUnixStream::from(stream);
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if !has_terminal {
        bytes.extend_from_slice(&frame_header(true, text.len()));
    }
    bytes.extend_from_slice(text.as_bytes());
    // The client may be gone; there is nobody else to tell.
    if let Err(error) = stream.write_all(&bytes) {
        tracing::debug!(%error, "cannot tell a client why its stream ends");
    }
}

/// Header of Docker's multiplexed stream: stream number, three zeroes, big-endian length.
pub(crate) fn frame_header(is_stderr: bool, length: usize) -> [u8; 8] {
    let mut header = [0; 8];
    header[0] = if is_stderr { 2 } else { 1 };
    header[4..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    header
}
