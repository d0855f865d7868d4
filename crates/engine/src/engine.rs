//! The engine itself: what it holds, and the small services every verb uses. Verbs are in `lifecycle`, `exec`, `files`, `images`, …
//!
//! Invariant: no lock is held across an await, except a container's own `operation`. Blocking work runs on blocking threads.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use berth_core::events::Occurrence;
use berth_core::{EventLog, Fleet, Objects, TaskManager};
use berth_image::ImageStore;
use berth_metadata::Metadata;
use berth_network::{NamespacePool, Network};

use crate::api::EngineOptions;
use crate::container::Container;
use crate::error::{EngineError, Result};
use crate::exec::Execs;
use crate::faults::Faults;
use crate::host::HostFacts;
use crate::id_blocks::IdBlocks;
use crate::metrics::Latencies;
use crate::paths::Paths;
use crate::record::Record;
use crate::registry::Registry;
use crate::seccomp_cache::SeccompCache;
use crate::store::RecordStore;
use crate::trace::Traces;
use crate::transfer::Transfers;
use crate::volumes::VolumeStore;
use crate::why::Reports;

/// A running engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: EngineOptions,
    /// Of this data root, made once.
    pub(crate) id: String,
    pub(crate) paths: Paths,
    pub(crate) facts: HostFacts,
    pub(crate) store: RecordStore,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) image_holds: crate::images::ImageHolds,
    pub(crate) transfers: Transfers,
    /// The default network, or why there is none: containers without it still work.
    pub(crate) network: std::result::Result<Arc<Network>, EngineError>,
    pub(crate) empty_networks: Arc<NamespacePool>,
    pub(crate) events: Arc<EventLog>,
    /// What containerd's API made: the same state, seen through another face.
    pub(crate) objects: Arc<Objects>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) volumes: VolumeStore,
    pub(crate) registry: Registry,
    pub(crate) tasks: TaskManager,
    pub(crate) seccomp: SeccompCache,
    pub(crate) id_blocks: IdBlocks,
    pub(crate) execs: Execs,
    pub(crate) traces: Traces,
    pub(crate) reports: Reports,
    pub(crate) latencies: Arc<Latencies>,
    pub(crate) metadata: Arc<Metadata>,
    /// Background deletions begun.
    pub(crate) trash_runs: AtomicU64,
    pub(crate) faults: Faults,
    /// Long image and archive work at the same time; the rest waits.
    pub(crate) heavy_work: Arc<tokio::sync::Semaphore>,
    /// Keeps the shims' way of telling what happened open.
    pub(crate) shim_events: std::sync::OnceLock<berth_core::ShimEvents>,
    /// Held as long as we live: one daemon per data root.
    pub(crate) _root_lock: File,
}

impl Engine {
    pub(crate) fn find(&self, container_ref: &str) -> Result<Arc<Container>> {
        match self.foreign(container_ref) {
            Some(foreign) => Err(foreign.not_done("this", "its document and its output are its maker's")),
            None => self.inner.registry.find(container_ref),
        }
    }

    /// Runs work that may block on a thread for it.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || work(&engine))
            .await
            .unwrap_or_else(|_| Err(EngineError::internal("a worker thread ended early")))
    }

    /// Like `blocking`, for long work: only a few at the same time.
    pub(crate) async fn heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.inner.heavy_work).acquire_owned().await;
        let permit = permit.map_err(|_| EngineError::internal("the engine is ending"))?;
        self.blocking(move |engine| {
            let done = work(engine);
            drop(permit);
            done
        })
        .await
    }

    pub(crate) fn network(&self) -> Result<Arc<Network>> {
        self.inner.network.clone().map_err(|error| {
            error
                .while_doing("the bridge network is not available on this host")
                .with_hint("use --network host or none")
        })
    }

    /// Records an event. A full disk does not stop containers: it is logged, live readers get the event all the same.
    pub(crate) fn emit(&self, kind: &'static str, action: &str, actor_id: &str, attributes: BTreeMap<String, String>) {
        self.record(Occurrence {
            kind,
            action: action.to_owned(),
            actor_id: actor_id.to_owned(),
            attributes,
            ..Occurrence::default()
        });
    }

    pub(crate) fn record(&self, occurrence: Occurrence) {
        let (event, kept) = self.inner.events.append(occurrence);
        if let Err(error) = kept {
            tracing::warn!(sequence = event.sequence, "event is not kept: {}", berth_types::report(&error));
        }
    }

    /// An event of a container, with Docker's attributes: its labels, image and name, and those of the action.
    pub(crate) fn emit_container(&self, record: &Record, action: &str, extra: &[(&str, String)]) {
        self.emit_container_process(record, action, extra, record.state.pid);
    }

    /// The same, about another process than its init as the record has it.
    pub(crate) fn emit_container_process(&self, record: &Record, action: &str, extra: &[(&str, String)], pid: u32) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.record(Occurrence {
            kind: "container",
            action: action.to_owned(),
            actor_id: record.id.to_string(),
            attributes,
            pid,
            envelope: None,
        });
    }

    /// Keeps the container's record as it is now. Throw-away records are written at once, others by a blocking thread.
    pub(crate) async fn persist(&self, container: &Arc<Container>) -> Result<()> {
        let is_throw_away = container.lock().record.host.auto_remove;
        if is_throw_away {
            return self.persist_now(container, false);
        }
        let container = Arc::clone(container);
        self.blocking(move |engine| engine.persist_now(&container, false)).await
    }

    /// Writers of one record take turns, so that an older state never overwrites a newer one.
    pub(crate) fn persist_now(&self, container: &Container, is_durable: bool) -> Result<()> {
        let _turn = container.persisting.lock();
        let record = {
            let inner = container.lock();
            if inner.is_removed {
                return Ok(());
            }
            inner.record.clone()
        };
        self.inner.store.put(&record, is_durable)
    }

    /// Persists where there is nobody to report a failure to.
    pub(crate) async fn persist_logged(&self, container: &Arc<Container>) {
        if let Err(error) = self.persist(container).await {
            tracing::warn!(container_id = %container.id, "state of the container is not kept: {error}");
        }
    }
}
