//! A container in memory: its record, its running task, and who waits for it.
//!
//! Lock order: `operation` (async, one state-changing verb at a time) before `inner` (short, never across an await).
//! The exit of a run is recorded without `operation`, so that a `stop` that holds it can wait for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_core::Task;
use berth_rootfs::OverlayRootfs;
use berth_shim_client::AttachOptions;
use berth_snapshot::TreeSize;
use berth_types::{ChainId, ContainerId, Span};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{oneshot, watch};

use crate::api::{Status, WaitCondition};
use crate::error::{EngineError, Result};
use crate::record::Record;

/// What a waiter gets: exit code, and the engine's error if it could not start.
pub(crate) type ExitReport = (i32, Option<String>);

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Taken by writers of the record on disk, before `inner`.
    pub(crate) persisting: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) record: Record,
    pub(crate) rootfs: Option<KnownRootfs>,
    pub(crate) writable: Writable,
    pub(crate) run: Option<Arc<Run>>,
    pub(crate) waiters: Vec<Waiter>,
    /// Memory kills of this run that have been told.
    pub(crate) oom_kills_told: u64,
    /// Clients that attached before the start.
    pub(crate) pending_attaches: Vec<(OwnedFd, AttachOptions)>,
    pub(crate) spans: Vec<Span>,
    pub(crate) is_removed: bool,
    /// Whose start this one's start waits for, to join its namespaces.
    pub(crate) awaits: Option<ContainerId>,
    /// Changes with every stop, start and removal by a person: a pending restart that sees another value gives up.
    pub(crate) generation: u64,
    /// Back-off of the last restart; zero when the last run did not end in one.
    pub(crate) restart_delay: std::time::Duration,
}

/// A layer stack, as long as no layer left its place since.
#[derive(Debug, Clone)]
pub(crate) struct KnownRootfs {
    pub(crate) rootfs: OverlayRootfs,
    /// Bottom to top.
    pub(crate) layers: Vec<ChainId>,
    /// [`berth_image::ImageStore::layer_removals`] before it was made.
    pub(crate) removals: u64,
}

/// What is known of the size of a writable layer. It can change only while the container runs or somebody copies into it, so a figure taken in
/// between stays true until the next time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writable {
    size: Option<TreeSize>,
    /// Copies into it under way.
    writers: usize,
    /// Changes with every start and with every copy's begin and end.
    changes: u64,
}

impl Writable {
    pub(crate) fn changes(&mut self) {
        self.size = None;
        self.changes += 1;
    }

    pub(crate) fn begin_writing(&mut self) {
        self.changes();
        self.writers += 1;
    }

    pub(crate) fn end_writing(&mut self) {
        self.changes();
        self.writers -= 1;
    }
}

#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) condition: WaitCondition,
    pub(crate) answer: oneshot::Sender<ExitReport>,
}

/// Clients that may wait for a start at the same time.
pub(crate) const PENDING_ATTACHES_MAX: usize = 32;
/// Waiters per container.
pub(crate) const WAITERS_MAX: usize = 1024;

/// One life of a container's task, from start to the end of its clean-up.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) task: Task,
    pub(crate) progress: watch::Sender<RunProgress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RunProgress {
    Alive,
    /// Init has ended and the exit is recorded.
    Ended,
    /// Shim, network and bundle are gone.
    TornDown,
}

impl Run {
    pub(crate) fn new(task: Task) -> Arc<Self> {
        Arc::new(Self { task, progress: watch::Sender::new(RunProgress::Alive) })
    }

    /// Returns once the run has come that far.
    pub(crate) async fn reached(&self, progress: RunProgress) {
        let mut receiver = self.progress.subscribe();
        let reached = receiver.wait_for(|p| *p >= progress).await;
        debug_assert!(reached.is_ok(), "the sender lives in self");
    }

    pub(crate) fn advance(&self, progress: RunProgress) {
        self.progress.send_if_modified(|p| {
            let is_news = *p < progress;
            *p = (*p).max(progress);
            is_news
        });
    }
}

impl Container {
    pub(crate) fn new(record: Record, rootfs: Option<KnownRootfs>) -> Arc<Self> {
        let inner = Inner {
            record,
            rootfs,
            writable: Writable::default(),
            run: None,
            waiters: Vec::new(),
            oom_kills_told: 0,
            pending_attaches: Vec::new(),
            spans: Vec::new(),
            is_removed: false,
            awaits: None,
            generation: 0,
            restart_delay: std::time::Duration::ZERO,
        };
        Arc::new(Self {
            id: inner.record.id.clone(),
            operation: tokio::sync::Mutex::new(()),
            persisting: Mutex::new(()),
            inner: Mutex::new(inner),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(crate) fn name(&self) -> String {
        self.lock().record.name.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.lock().record.state.status
    }

    /// The record as it is now, for persisting and for long work.
    pub(crate) fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// The live run.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container does not run.
    pub(crate) fn running(&self) -> Result<Arc<Run>> {
        let inner = self.lock();
        match &inner.run {
            Some(run) if inner.record.state.is_running() => Ok(Arc::clone(run)),
            _ => Err(EngineError::conflict(format!("container {} is not running", inner.record.name))
                .with_hint(format!("berth start {}", inner.record.name))),
        }
    }

    /// The container is gone for a verb that comes after `rm`.
    pub(crate) fn ensure_present(&self) -> Result<()> {
        if self.lock().is_removed {
            return Err(EngineError::not_found(format!("No such container: {}", self.id.short())));
        }
        Ok(())
    }
}

impl Inner {
    /// A figure that is still true.
    pub(crate) fn writable_size(&self) -> Option<TreeSize> {
        self.writable.size.filter(|_| self.is_at_rest())
    }

    /// Before a walk: to be given to [`Self::note_writable_size`]; nothing while files may change.
    pub(crate) fn writable_mark(&self) -> Option<u64> {
        self.is_at_rest().then_some(self.writable.changes)
    }

    pub(crate) fn note_writable_size(&mut self, mark: Option<u64>, size: TreeSize) {
        if mark == Some(self.writable.changes) && self.is_at_rest() {
            self.writable.size = Some(size);
        }
    }

    /// Nothing of it runs or is written to.
    pub(crate) fn is_at_rest(&self) -> bool {
        let has_run = |run: &Arc<Run>| *run.progress.borrow() < RunProgress::TornDown;
        self.writable.writers == 0 && !self.record.state.is_running() && !self.run.as_ref().is_some_and(has_run)
    }

    /// Answers waiters of these conditions.
    pub(crate) fn answer(&mut self, conditions: &[WaitCondition], report: &ExitReport) {
        let (due, rest) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| conditions.contains(&waiter.condition));
        self.waiters = rest;
        for waiter in due {
            // A waiter that hung up is no failure.
            drop(waiter.answer.send(report.clone()));
        }
    }

    pub(crate) fn exit_report(&self) -> ExitReport {
        let state = &self.record.state;
        (state.exit_code, (!state.error.is_empty()).then(|| state.error.clone()))
    }
}
