//! Streaming bodies: channels of the engine become HTTP bodies; request bodies become channels of the engine.

use axum::body::{Body, Bytes};
use axum::response::Response;
use berth_engine::api::{ByteStream, EngineError, Progress};
use berth_types::ErrorClass;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Chunks under way between a client and the engine; each at most a few hundred kilobytes.
const CHUNKS_MAX: usize = 4;

/// Receiver as stream.
pub(crate) fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

/// A tar (or other bytes) from the engine. An error in the middle breaks the connection: a truncated archive never looks whole.
pub(crate) fn bytes_response(content_type: &'static str, chunks: ByteStream) -> Response {
    let body = Body::from_stream(receive(chunks).map(|chunk| chunk.map(Bytes::from)));
    response(content_type, body)
}

pub(crate) fn response(content_type: &'static str, body: Body) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, content_type)
        .body(body)
        .expect("constant headers are valid")
}

/// JSON documents, one a line.
pub(crate) fn json_lines<S>(lines: S) -> Response
where
    S: Stream<Item = Value> + Send + 'static,
{
    let body =
        Body::from_stream(lines.map(|line| Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\r\n")))));
    response("application/json", body)
}

/// The request's body as a channel the engine reads on a thread of its own.
pub(crate) fn request_bytes(body: Body) -> ByteStream {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map(|bytes| bytes.to_vec()).map_err(|error| EngineError {
                class: ErrorClass::Aborted,
                message: format!("the client's upload broke off: {error}"),
                hint: None,
                exit_code: 125,
            });
            let is_last = chunk.is_err();
            if sender.send(chunk).await.is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Docker's progress message.
pub(crate) fn progress_line(progress: &Progress) -> Value {
    let mut line = json!({ "status": progress.status });
    if !progress.id.is_empty() {
        line["id"] = json!(progress.id);
    }
    if let Some(current) = progress.current {
        line["progressDetail"] = json!({ "current": current.0, "total": progress.total.map(|t| t.0) });
    } else if !progress.id.is_empty() {
        line["progressDetail"] = json!({});
    }
    line
}

/// The same with what the engine knows beside it.
pub(crate) fn stream_error(error: &EngineError) -> Value {
    let mut line = error_line(&error.message);
    line["berth"] = json!({ "class": error.class, "hint": error.hint });
    line
}

/// Docker's way to fail after the headers are out.
pub(crate) fn error_line(message: &str) -> Value {
    json!({ "errorDetail": { "message": message }, "error": message })
}
