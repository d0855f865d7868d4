//! A small registry of our own over a content store: one machine hands images to another, and tests need no server from elsewhere.
//!
//! Pull and push of distribution-spec 1.1: manifests, blobs with ranges, uploads in chunks or at once, mounts, tags, referrers. No deletion, no
//! authentication, no TLS: it is for loopback and networks where everybody may read; writing can be turned off.
//!
//! ```text
//! <root>/content/                               crate content
//! <root>/repositories/<name>/_blobs/<hex>       the repository has this blob
//!                            _manifests/<hex>   media type of a manifest it has
//!                            _tags/<tag>        digest
//!                            _referrers/<hex>/<hex>   descriptor of what refers to a manifest (JSON)
//! ```
//!
//! A component of a repository's name never begins with `_`, so names and our own directories cannot meet.

mod answer;
mod blob;
mod manifest;
mod route;
mod shelf;
mod upload;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use answer::{Answer, Body};
use route::Route;
use shelf::Shelf;

use crate::{RegistryError, Result};

/// Connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 256;
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// What a registry of ours may do.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    pub root: PathBuf,
    pub push: PushPolicy,
}

/// Who may put something into the registry. Nobody is asked for a password, so the default is whoever is on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PushPolicy {
    Never,
    /// Clients that come from a loopback address.
    #[default]
    Loopback,
    Always,
}

/// A registry that answers requests.
#[derive(Debug)]
pub struct RegistryServer {
    shelf: Shelf,
    push: PushPolicy,
}

impl RegistryServer {
    /// Opens or makes the store below the root. One process at a time.
    ///
    /// # Errors
    /// When the directories cannot be made, or another process has them.
    pub fn open(options: &ServeOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { shelf: Shelf::open(&options.root)?, push: options.push }))
    }

    /// Serves connections until accepting fails for good.
    ///
    /// # Errors
    /// When the listener itself breaks.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let server = Arc::clone(&self);
                    let may_push = match self.push {
                        PushPolicy::Never => false,
                        PushPolicy::Loopback => peer.ip().to_canonical().is_loopback(),
                        PushPolicy::Always => true,
                    };
                    tokio::spawn(async move {
                        server.connection(stream, may_push).await;
                        drop(slot);
                    });
                }
                Err(error) if matches!(error.raw_os_error(), Some(23 | 24 | 103 | 104 | 105)) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(source) => return Err(RegistryError::Connect { host: "the listener".to_owned(), source }),
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, may_push: bool) {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.respond(request, may_push).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_headers(64)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn respond(&self, request: Request<Incoming>, may_push: bool) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = self.answer(request, may_push).await;
        let response = answered.unwrap_or_else(answer::Refusal::into_response);
        tracing::info!(%method, path, status = response.status().as_u16(), "request");
        response
    }

    async fn answer(&self, request: Request<Incoming>, may_push: bool) -> Answer {
        let route = Route::parse(request.uri().path())?;
        let method = request.method().clone();
        let is_read = matches!(method, Method::GET | Method::HEAD);
        if !is_read && !may_push {
            return Err(answer::denied("this registry is read-only for you"));
        }
        let is_head = method == Method::HEAD;
        match (&route, &method) {
            (Route::Base, _) if is_read => Ok(answer::json(&serde_json::json!({}))),
            (Route::Tags(name), &Method::GET) => self.tags(name, request.uri().query().unwrap_or_default()),
            (Route::Manifest(name, target), _) if is_read => self.get_manifest(name, target, is_head),
            (Route::Manifest(name, target), &Method::PUT) => self.put_manifest(name, target, request).await,
            (Route::Blob(name, digest), _) if is_read => self.get_blob(name, digest, request.headers(), is_head),
            (Route::Uploads(name), &Method::POST) => self.begin_upload(name, request).await,
            (Route::Upload(name, id), &Method::GET) => self.upload_status(name, id).await,
            (Route::Upload(name, id), &Method::PATCH) => self.append_upload(name, id, request).await,
            (Route::Upload(name, id), &Method::PUT) => self.finish_upload(name, id, request).await,
            (Route::Upload(name, id), &Method::DELETE) => self.cancel_upload(name, id),
            (Route::Referrers(name, digest), &Method::GET) => {
                self.get_referrers(name, digest, request.uri().query().unwrap_or_default())
            }
            _ => Err(answer::unsupported(&method)),
        }
    }
}

#[cfg(test)]
mod tests;
