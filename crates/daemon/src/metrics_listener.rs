//! `GET /metrics` on a TCP address of its own: the loopback's, unless somebody said that others may read it. There is no password on it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use berth_engine::api::Engine;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MetricsError {
    #[error(
        "metrics address {0} is not of the loopback: anybody who reaches it could read names and images of all containers; choose 127.0.0.1 or [::1], or allow it with --metrics-allow-remote"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen for metrics on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// # Errors
/// `NotLoopback` for an address that others may reach, without leave.
pub(crate) fn check(address: SocketAddr, allows_remote: bool) -> Result<(), MetricsError> {
    if allows_remote || address.ip().is_loopback() { Ok(()) } else { Err(MetricsError::NotLoopback(address)) }
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(address).await.map_err(|source| MetricsError::Bind { address, source })
}

pub(crate) async fn serve(listener: TcpListener, engine: Arc<Engine>) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(engine);
    axum::serve(listener, router).await
}

async fn metrics(State(engine): State<Arc<Engine>>) -> Response {
    match engine.metrics().await {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.message).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_without_leave() {
        for (address, allows_remote, is_good) in [
            ("127.0.0.1:9", false, true),
            ("[::1]:9", false, true),
            ("0.0.0.0:9", false, false),
            ("192.0.2.1:9", false, false),
            ("0.0.0.0:9", true, true),
        ] {
            assert_eq!(check(address.parse().unwrap(), allows_remote).is_ok(), is_good, "{address}");
        }
    }
}
