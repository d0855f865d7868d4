//! Answers and refusals in the distribution-spec's form.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::RegistryError;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Answer = std::result::Result<Response<Body>, Refusal>;

/// Why a request is not served (distribution-spec, "Error Codes").
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = json(&json!({ "errors": [{ "code": self.code, "message": self.message }] }));
        *response.status_mut() = self.status;
        response
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        tracing::error!("{}", berth_types::report(&error));
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the store cannot be used; see the log")
    }
}

impl From<berth_content::ContentError> for Refusal {
    fn from(error: berth_content::ContentError) -> Self {
        use berth_content::ContentError::{NotFound, WrongDigest, WrongSize};
        match error {
            NotFound { digest } => {
                Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("there is no blob {digest}"))
            }
            WrongDigest { .. } | WrongSize { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
            }
            other => {
                tracing::error!("{}", berth_types::report(&other));
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the store cannot be used; see the log")
            }
        }
    }
}

pub(super) fn denied(why: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "DENIED", why)
}

pub(super) fn unsupported(method: &Method) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", format!("{method} is not supported here"))
}

pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}

pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, code, message)
}

pub(super) fn json(document: &Value) -> Response<Body> {
    bytes("application/json", document.to_string().into_bytes(), false)
}

/// A whole document; of a HEAD only its length.
pub(super) fn bytes(media_type: &str, content: Vec<u8>, is_head: bool) -> Response<Body> {
    let length = content.len();
    let body = if is_head { Bytes::new() } else { Bytes::from(content) };
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    response
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A body from a channel that a thread fills.
pub(super) fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    let pieces = stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
    http_body_util::BodyExt::boxed_unsync(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

pub(super) fn with_header(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
