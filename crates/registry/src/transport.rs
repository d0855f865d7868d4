//! Requests and answers: pooled connections per TLS setting, a deadline on every wait, a limit on every document.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::address;
use crate::connector::Connector;
use crate::options::RegistryOptions;
use crate::proxy::Proxies;
use crate::tls::{Tls, TlsSettings};
use crate::{RegistryError, Result};

const IDLE: Duration = Duration::from_secs(20);
/// Heads of answers: header bytes and header count.
const HEAD_BYTES_MAX: usize = 512 << 10;
const HEADERS_MAX: usize = 128;
/// The longest error document that is read.
pub(crate) const ERROR_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
    stall: Duration,
}

impl Transport {
    pub(crate) fn new(options: &RegistryOptions, proxies: Arc<Proxies>, settings: TlsSettings) -> Self {
        let connector = Connector { tls: Arc::new(Tls::new(settings)), proxies, timeout: options.connect_timeout };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(options.streams_max)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector.clone());
        Self { client, connector, stall: options.stall }
    }

    /// The head of the answer. `patience`: how long it may take.
    pub(crate) async fn send(
        &self,
        operation: &'static str,
        mut request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Response<Incoming>> {
        let uri = request.uri().clone();
        let proxy = self.connector.proxies.for_uri(&uri).and_then(|proxy| proxy.authorization.clone());
        if let Some(value) = proxy.filter(|_| uri.scheme_str() == Some("http")) {
            request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, value);
        }
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(connect_failed(&uri, error)),
            Ok(Err(error)) => Err(broken(operation, &uri, error)),
            Err(_) => Err(RegistryError::Stalled { operation, url: address::shown(&uri), waited: patience }),
        }
    }

    pub(crate) const fn stall(&self) -> Duration {
        self.stall
    }

    /// Whether the peer speaks TLS: a connection that could be made and secured.
    pub(crate) async fn speaks_tls(&self, authority: &str) -> bool {
        let Ok(uri) = format!("https://{authority}/").parse::<Uri>() else { return false };
        let within = Duration::from_secs(3).min(self.connector.timeout);
        tokio::time::timeout(within, self.connector.connect(&uri)).await.is_ok_and(|connected| connected.is_ok())
    }

    /// The next piece of a body; `None` at its end.
    pub(crate) async fn next(&self, operation: &'static str, uri: &Uri, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            let frame = match tokio::time::timeout(self.stall, body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(broken(operation, uri, error)),
                Err(_) => {
                    let url = address::shown(uri);
                    return Err(RegistryError::Stalled { operation, url, waited: self.stall });
                }
            };
            match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                // Trailers, which nobody needs.
                _ => {}
            }
        }
    }

    /// A whole document of at most `bytes_max`.
    pub(crate) async fn read(
        &self,
        operation: &'static str,
        uri: &Uri,
        response: Response<Incoming>,
        bytes_max: u64,
    ) -> Result<Vec<u8>> {
        let too_large = || RegistryError::TooLarge { what: address::shown(uri), bytes_max };
        let mut body = response.into_body();
        if hyper::body::Body::size_hint(&body).lower() > bytes_max {
            return Err(too_large());
        }
        let started = tokio::time::Instant::now();
        let mut bytes = Vec::new();
        while let Some(piece) = self.next(operation, uri, &mut body).await? {
            if (bytes.len() + piece.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
            // A document is small: one that trickles in is as good as one that does not come.
            if started.elapsed() > self.stall.saturating_mul(4) {
                let url = address::shown(uri);
                return Err(RegistryError::Stalled { operation, url, waited: started.elapsed() });
            }
        }
        Ok(bytes)
    }
}

fn connect_failed(uri: &Uri, error: hyper_util::client::legacy::Error) -> RegistryError {
    let host = address::joined(&address::host_of(uri), address::port_of(uri));
    RegistryError::Connect { host, source: io_of(&error) }
}

/// The I/O error below, which says what the kernel or TLS said.
fn io_of(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            return io::Error::new(found.kind(), found.to_string());
        }
        next = cause.source();
    }
    io::Error::other(error.to_string())
}

pub(crate) fn broken(
    operation: &'static str,
    uri: &Uri,
    error: impl std::error::Error + Send + Sync + 'static,
) -> RegistryError {
    RegistryError::Broken { operation, url: address::shown(uri), source: Box::new(error) }
}
