//! Transfers from and to registries: a thread with a runtime of its own, so that a busy network never delays the API, and what all transfers
//! share. Nothing of it exists before the first transfer.

mod board;
mod flight;
mod source;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use berth_content::ContentStore;
use berth_registry::{Credentials, Partials, Registry, RegistryOptions, Session};
use berth_types::{Digest, Reference};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub(crate) use board::Board;
pub(crate) use flight::{Flight, FlightState};
pub(crate) use source::{FetchSource, free_bytes, require_space};

use crate::api::Progress;
use crate::error::{EngineError, Result};

/// Images pulled at the same time; the rest waits. Blobs have a limit of their own.
const PULLS_MAX: usize = 4;
/// Threads that hash, unpack and flush.
const THREADS_MAX: usize = 48;

/// What makes two pulls the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FlightKey {
    pub(crate) reference: Reference,
    pub(crate) platform: String,
    pub(crate) credentials: Credentials,
}

#[derive(Debug)]
pub(crate) struct Transfers {
    registry: Arc<Registry>,
    pub(crate) partials: Arc<Partials>,
    runtime: Mutex<Option<Runtime>>,
    pub(crate) flights: Mutex<HashMap<FlightKey, Weak<Flight>>>,
    pub(crate) slots: Arc<Semaphore>,
}

#[derive(Debug)]
struct Runtime {
    handle: Handle,
    /// The runtime ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

impl Transfers {
    pub(crate) fn new(options: RegistryOptions, content: &Arc<ContentStore>) -> Result<Self> {
        Ok(Self {
            registry: Registry::new(options),
            partials: Arc::new(Partials::open(Arc::clone(content))?),
            runtime: Mutex::default(),
            flights: Mutex::default(),
            slots: Arc::new(Semaphore::new(PULLS_MAX)),
        })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn session(&self, reference: &Reference, credentials: Credentials) -> Result<Arc<Session>> {
        Ok(self.registry.session(reference, credentials)?)
    }

    /// Bytes of these blobs that have to come: what an interrupted pull left does not.
    pub(crate) fn missing_bytes(&self, blobs: impl Iterator<Item = (Digest, u64)>) -> u64 {
        blobs
            .map(|(digest, size)| size.saturating_sub(self.partials.kept_bytes(&digest, size)))
            .fold(0, u64::saturating_add)
    }

    /// The transfer thread's runtime.
    pub(crate) fn handle(&self) -> Result<Handle> {
        let mut runtime = self.runtime.lock();
        if let Some(running) = &*runtime {
            return Ok(running.handle.clone());
        }
        let failed = |e: std::io::Error| EngineError::internal(format!("cannot start the transfer thread: {e}"));
        let new = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS_MAX)
            .thread_stack_size(512 << 10)
            .build()
            .map_err(failed)?;
        let handle = new.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        let body = move || {
            // Ends when the sender is gone.
            drop(new.block_on(ended));
            new.shutdown_background();
        };
        // It ends with us; nobody waits for it.
        drop(std::thread::Builder::new().name("transfer".to_owned()).spawn(body).map_err(failed)?);
        *runtime = Some(Runtime { handle: handle.clone(), _alive: alive });
        Ok(handle)
    }

    /// Runs work on the transfer thread and waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let job = self.handle()?.spawn(work);
        let aborting = AbortOnDrop(job.abort_handle());
        let done = job.await.unwrap_or_else(|_| Err(EngineError::internal("the transfer ended early")));
        drop(aborting);
        done
    }
}

impl Transfers {
    /// Runs work on the transfer thread while what it puts on the board goes to a client; it ends with the client.
    pub(crate) async fn follow<T: Send + 'static>(
        &self,
        client: &mpsc::Sender<Progress>,
        board: &Board,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, is_done) = watch::channel(false);
        let job = self.handle()?.spawn(async move {
            let outcome = work.await;
            done.send_replace(true);
            outcome
        });
        let aborting = AbortOnDrop(job.abort_handle());
        if !board.follow(client, is_done).await {
            return Err(EngineError::new(berth_types::ErrorClass::Aborted, "the client is gone"));
        }
        let outcome = job.await.unwrap_or_else(|_| Err(EngineError::internal("the transfer ended early")));
        drop(aborting);
        outcome
    }
}

/// Ends a job whose client is gone.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
