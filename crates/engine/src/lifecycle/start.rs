//! `start`: the checks, and what happens after success and failure. The steps themselves are in `launch`.

use std::sync::Arc;

use berth_types::Timestamp;

use super::launch::Launch;
use crate::api::Status;
use crate::container::{Container, Run, RunProgress};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::trace::{now_ns, span};
use crate::why::end::{End, remember};
use crate::why::past_end;

/// How long the clean-up of the run before may take.
const TEARDOWN_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

impl Engine {
    /// Ok(false): it was already running.
    ///
    /// # Errors
    /// With the step that failed; nothing of the attempt remains.
    pub async fn start_container(&self, container_ref: &str) -> Result<bool> {
        let container = self.find(container_ref)?;
        let engine = self.clone();
        // A client that hangs up must not leave half a start behind: the job runs to its end.
        let job = tokio::spawn(async move {
            let _operation = container.operation.lock().await;
            engine.start_locked(&container, false).await
        });
        job.await.unwrap_or_else(|_| Err(EngineError::internal("the start ended early")))
    }

    /// The caller holds `operation`.
    pub(crate) async fn start_locked(&self, container: &Arc<Container>, is_restart: bool) -> Result<bool> {
        container.ensure_present()?;
        match container.status() {
            Status::Running => return Ok(false),
            Status::Restarting if !is_restart => return Ok(false),
            Status::Paused => {
                return Err(EngineError::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict("container is marked for removal and cannot be started"));
            }
            _ => {}
        }
        self.await_teardown(container).await?;
        let begun = now_ns();
        match Launch::new(self, container).run().await {
            Ok(run) => {
                self.started(container, run).await;
                self.add_spans(container, vec![span("container.start", container.id.short(), begun)]).await;
                Ok(true)
            }
            Err(error) => {
                self.start_failed(container, &error).await;
                Err(error.while_doing(format!("cannot start container \"{}\"", container.name())))
            }
        }
    }

    /// Waits until nothing of the run before is left.
    pub(crate) async fn await_teardown(&self, container: &Container) -> Result<()> {
        let Some(run) = container.lock().run.clone() else { return Ok(()) };
        tokio::time::timeout(TEARDOWN_WAIT, run.reached(RunProgress::TornDown)).await.map_err(|_| {
            EngineError::new(
                berth_types::ErrorClass::DeadlineExceeded,
                format!("the last run of container \"{}\" is not cleaned up yet", container.name()),
            )
        })
    }

    async fn started(&self, container: &Arc<Container>, run: Arc<Run>) {
        let record = {
            let mut inner = container.lock();
            let pid = run.task.pid();
            let state = &mut inner.record.state;
            state.status = Status::Running;
            state.pid = pid;
            state.exit_code = 0;
            state.oom_killed = false;
            state.stopped_by_user = false;
            state.error.clear();
            state.end = End::default();
            state.started_at = Some(Timestamp::now());
            state.finished_at = None;
            inner.oom_kills_told = 0;
            inner.run = Some(Arc::clone(&run));
            inner.writable.changes();
            inner.record.clone()
        };
        self.inner.faults.pass("state.running");
        self.emit_volume_mounts(&record);
        self.emit_container(&record, "start", &[]);
        self.inner.faults.pass("start.told");
        // The exit is only looked for after the start is told: create < start < die.
        self.supervise(Arc::clone(container), run);
        self.persist_logged(container).await;
        self.inner.faults.pass("state.keep");
    }

    async fn start_failed(&self, container: &Arc<Container>, error: &EngineError) {
        let auto_remove = {
            let mut inner = container.lock();
            inner.pending_attaches.clear();
            inner.writable.changes();
            let state = &mut inner.record.state;
            state.status = if state.started_at.is_some() { Status::Exited } else { Status::Created };
            state.pid = 0;
            state.exit_code = if error.exit_code == 125 { 128 } else { i32::from(error.exit_code) };
            state.error.clone_from(&error.message);
            state.finished_at = Some(Timestamp::now());
            state.end = End { failed_start: true, ..End::default() };
            let past = past_end(&inner.record);
            remember(&mut inner.record.state.past, past);
            let report = inner.exit_report();
            inner.answer(&[crate::api::WaitCondition::NextExit], &report);
            inner.record.host.auto_remove
        };
        if auto_remove {
            self.keep_report(container).await;
            if let Err(error) = self.remove_locked(container, false).await {
                tracing::warn!(container_id = %container.id, "cannot remove the container: {error}");
            }
            return;
        }
        self.persist_logged(container).await;
    }
}
