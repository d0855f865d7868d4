//! `berthd registry serve`: a registry of our own, without an engine.

use std::error::Error;

use berth_registry::{PushPolicy, RegistryServer, ServeOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::RegistryServe;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
struct ListenError {
    address: std::net::SocketAddr,
    source: std::io::Error,
}

/// Serves until SIGTERM or SIGINT; there is nothing to shut down.
pub(crate) fn run(options: &RegistryServe) -> Result<(), Box<dyn Error + Send + Sync>> {
    let push = match options.push.as_str() {
        "never" => PushPolicy::Never,
        "always" => PushPolicy::Always,
        _ => PushPolicy::Loopback,
    };
    let server = RegistryServer::open(&ServeOptions { root: options.store.clone(), push })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(64).build()?;
    runtime.block_on(async {
        let address = options.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(address = %listener.local_addr()?, store = %options.store.display(), "the registry is ready");
        tokio::select! {
            served = server.serve(listener) => Ok(served?),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
