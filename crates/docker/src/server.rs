//! Serving: unix socket listener, HTTP/1.1 connections with upgrades, version prefixes, common headers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use berth_engine::api::{Caller, Engine};
use berth_types::ErrorClass;
use http::{HeaderValue, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tower::ServiceExt as _;

use crate::error::ApiError;
use crate::state::{Face, FaceOptions};
use crate::{API_VERSION, API_VERSION_MIN, endpoints, latency};

#[derive(Debug, thiserror::Error)]
#[error("cannot accept connections on the docker socket")]
pub struct ServeError(#[source] std::io::Error);

/// JSON request bodies are at most this long; archives are streams and have no such limit.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Bodies up to this length are read before routing.
const SMALL_BODY_BYTES_MAX: usize = 256 << 10;

/// All endpoints, unversioned; `serve` strips version prefixes before routing.
pub fn router(engine: Arc<Engine>, options: FaceOptions) -> Router {
    let face = Face::new(engine, options);
    endpoints::routes()
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(face.clone(), latency::measure))
        .with_state(face)
}

/// Serves connections until accepting fails for good.
///
/// # Errors
/// When the listener itself breaks.
pub async fn serve(listener: UnixListener, router: Router) -> Result<(), ServeError> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let caller = caller(&stream);
                tokio::spawn(caller.scope(connection(stream, router.clone())));
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(error) => return Err(ServeError(error)),
        }
    }
}

/// The process that connected, for records of who asked for what.
fn caller(stream: &UnixStream) -> Caller {
    let peer = stream.peer_cred().ok();
    peer.map_or_else(Caller::default, |peer| Caller::new(peer.pid().unwrap_or(0), peer.uid()))
}

/// Out of descriptors or memory, or a client that left early: later accepts may work.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, OutOfMemory};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | OutOfMemory)
        || matches!(error.raw_os_error(), Some(23 | 24 | 105)) // ENFILE, EMFILE, ENOBUFS
}

async fn connection(stream: UnixStream, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(respond(router, request.map(Body::new)).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

/// Takes a small body in before anybody answers: an answer that leaves it unread makes the kernel reset the connection,
/// and the client may lose the answer with it.
async fn with_body_read(request: Request<Body>) -> Result<Request<Body>, ApiError> {
    let length = request.headers().get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    if !length.is_some_and(|length| (1..=SMALL_BODY_BYTES_MAX).contains(&length)) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, SMALL_BODY_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

async fn respond(router: Router, request: Request<Body>) -> Response {
    let mut request = match with_body_read(request).await {
        Ok(request) => request,
        Err(error) => return error.into_response(),
    };
    let mut response = match strip_version(request.uri()) {
        Ok(Some(uri)) => {
            *request.uri_mut() = uri;
            route(router, request).await
        }
        Ok(None) => route(router, request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(API_VERSION));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", HeaderValue::from_static(concat!("Berth/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

async fn route(router: Router, request: Request<Body>) -> Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// `/v1.41/containers/json` becomes `/containers/json`; `None` when there is no prefix.
fn strip_version(uri: &Uri) -> Result<Option<Uri>, ApiError> {
    let Some((version, rest)) = uri.path().strip_prefix("/v").and_then(|p| p.split_once('/')) else { return Ok(None) };
    let Some(asked) = parse_version(version) else { return Ok(None) };
    if parse_version(API_VERSION_MIN).is_some_and(|min| asked < min) {
        let message = format!(
            "client version {version} is too old. Minimum supported API version is {API_VERSION_MIN}, please upgrade your client to a newer version"
        );
        return Err(ApiError::invalid(message));
    }
    if parse_version(API_VERSION).is_some_and(|max| asked > max) {
        let message = format!("client version {version} is too new. Maximum supported API version is {API_VERSION}");
        return Err(ApiError::invalid(message));
    }
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let bad = |_| ApiError::new(ErrorClass::InvalidArgument, format!("request path {:?} is not valid", uri.path()));
    format!("/{rest}{query}").parse().map(Some).map_err(bad)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_negotiated() {
        let strip = |path: &str| strip_version(&path.parse().unwrap()).map(|u| u.map(|u| u.to_string()));
        assert_eq!(strip("/v1.24/info?x=1").unwrap().as_deref(), Some("/info?x=1"));
        assert_eq!(strip("/_ping").unwrap(), None);
        assert_eq!(strip("/volumes/x").unwrap(), None);
        assert!(strip("/v1.23/info").unwrap_err().message().contains("Minimum supported API version is 1.24"));
        assert!(strip("/v1.99/info").unwrap_err().message().contains("too new"));
    }
}
