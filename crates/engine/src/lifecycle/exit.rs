//! The end of a run: recorded once, told once, cleaned up, and what the policy says comes next.

use std::sync::Arc;
use std::time::Duration;

use berth_core::{Phase, Task};
use berth_network::Endpoint;
use berth_shim_client::ExitStatus;
use berth_types::{Signal, Span, Timestamp};

use crate::api::{Status, WaitCondition};
use crate::container::{Container, Run, RunProgress};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Record;
use crate::restart;
use crate::trace::{life_span, now_ns, span};
use crate::why::end::{End, remember};
use crate::why::past_end;

/// Longest wait for the processes of a discarded task.
const DISCARD_WAIT: Duration = Duration::from_secs(10);

/// The end of a run as it came to our knowledge.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The shim died with it, and why we think so.
    pub(crate) lost: Option<String>,
    /// A daemon before us told it, and was killed before it had cleaned up.
    pub(crate) is_told: bool,
}

impl Engine {
    /// Takes what shims tell. Without it memory kills are told at the exit only, and the fleet's events not at all.
    pub(crate) async fn listen_to_shims(&self) {
        let paths = [self.inner.paths.events_socket(), self.inner.paths.containerd_ttrpc_socket()];
        let started = berth_core::ShimEvents::start(&[paths[0].as_path(), paths[1].as_path()]).await;
        let (listener, mut events) = match started {
            Ok(started) => started,
            Err(error) => {
                tracing::error!("events of shims are not taken: {}", berth_types::report(&error));
                return;
            }
        };
        if self.inner.shim_events.set(listener).is_err() {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            while let Some(envelope) = events.recv().await {
                engine.shim_told(envelope);
            }
        });
    }

    /// The engine's own containers are followed by open calls: of them only memory kills are news.
    fn shim_told(&self, envelope: berth_core::events::Envelope) {
        let own = berth_core::fleet::container_of(&envelope)
            .and_then(|id| id.parse::<berth_types::ContainerId>().ok())
            .filter(|id| envelope.namespace == "default" && self.inner.registry.contains(id));
        match own {
            Some(id) if envelope.topic == "/tasks/oom" => self.oom_reported(&id),
            Some(_) => {}
            None => self.inner.fleet.record(envelope),
        }
    }

    fn oom_reported(&self, id: &berth_types::ContainerId) {
        let Ok(container) = self.find(id.as_str()) else { return };
        let record = {
            let mut inner = container.lock();
            if !inner.record.state.is_running() {
                return;
            }
            inner.oom_kills_told += 1;
            inner.record.clone()
        };
        self.emit_container(&record, "oom", &[]);
    }

    /// Watches a run until its end, in a job of its own.
    pub(crate) fn supervise(&self, container: Arc<Container>, run: Arc<Run>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let (status, lost) = match run.task.wait().await {
                Ok(status) => (status, None),
                Err(error) => engine.shim_lost(&container, &run, &error).await,
            };
            engine.ended(&container, &run, Ended { status, lost, is_told: false }).await;
        });
    }

    /// The shim has died: nobody reads the container's output any more, so what is left of it is ended.
    async fn shim_lost(
        &self,
        container: &Container,
        run: &Run,
        error: &berth_core::TaskError,
    ) -> (ExitStatus, Option<String>) {
        let why = format!("the container's shim has ended unexpectedly: {}", berth_types::report(error));
        tracing::warn!(container_id = %container.id, "{why}");
        // Before the clean-up takes the control group away.
        self.note_end(container, run, ExitStatus::killed(), true).await;
        let status = self.inner.tasks.clean_up_dead(&container.id).await.unwrap_or_else(|error| {
            tracing::warn!(container_id = %container.id, "cleaning up after a shim: {}", berth_types::report(&error));
            ExitStatus::killed()
        });
        (status, Some(why))
    }

    /// Records and tells an exit, then cleans up. Also for exits found at a restart of the daemon.
    pub(crate) async fn ended(&self, container: &Arc<Container>, run: &Arc<Run>, ended: Ended) {
        let was_lost = ended.lost.is_some();
        let life = life_span(&container.lock().spans);
        let (begun, code) = (now_ns(), ended.status.code);
        if !was_lost {
            self.note_end(container, run, ended.status, false).await;
        }
        let (record, delay) = self.record_exit(container, ended);
        run.advance(RunProgress::Ended);
        // The shim is the only other one who knows how it ended, and it forgets with the task.
        if !record.host.auto_remove {
            self.persist_logged(container).await;
            self.inner.faults.pass("exit.keep");
        }
        let mut spans: Vec<Span> = life.into_iter().collect();
        spans.push(span("exit.record", code.to_string(), begun));
        self.tear_down(container, run, was_lost, &mut spans).await;
        self.add_spans(container, spans).await;
        run.advance(RunProgress::TornDown);
        self.inner.images.a_user_went();
        if record.host.auto_remove {
            self.keep_report(container).await;
            let _operation = container.operation.lock().await;
            if let Err(error) = self.remove_locked(container, false).await {
                tracing::warn!(container_id = %container.id, "cannot remove the container: {error}");
            }
            return;
        }
        if let Some(delay) = delay {
            self.restart_later(Arc::clone(container), delay);
        }
    }

    /// State, event and waiters; returns the record and the delay until a restart.
    fn record_exit(&self, container: &Container, ended: Ended) -> (Record, Option<Duration>) {
        let Ended { status, lost, is_told } = ended;
        let (record, delay, ran_for, oom_kills, pid) = {
            let mut inner = container.lock();
            let last_delay = inner.restart_delay;
            let policy = inner.record.host.restart_policy;
            let told = inner.oom_kills_told;
            let state = &mut inner.record.state;
            // The group may be gone already (systemd removes an empty scope); what the shim saw in time counts as well.
            state.end.oom_kills = state.end.oom_kills.max(told);
            let oom_kills = state.end.oom_kills;
            let ran_for = duration_between(state.started_at, status.exited_at);
            let pid = std::mem::take(&mut state.pid);
            state.exit_code = i32::try_from(status.code).unwrap_or(255);
            state.finished_at = Some(status.exited_at);
            state.oom_killed = oom_kills > 0;
            state.error = lost.unwrap_or_default();
            let ended = restart::Ended {
                exit_code: state.exit_code,
                ran_for,
                was_stopped_by_user: state.stopped_by_user,
                restart_count: state.restart_count,
            };
            let delay = restart::decide(policy, ended, last_delay);
            state.status = if delay.is_some() { Status::Restarting } else { Status::Exited };
            inner.restart_delay = delay.unwrap_or_default();
            let past = past_end(&inner.record);
            remember(&mut inner.record.state.past, past);
            (inner.record.clone(), delay, ran_for, oom_kills, pid)
        };
        self.inner.faults.pass("exit.record");
        // A kill that is told at the exit comes before it, and once: later reports find a container that does not run.
        if !is_told && oom_kills > container.lock().oom_kills_told {
            self.emit_container(&record, "oom", &[]);
        }
        let attributes =
            [("exitCode", record.state.exit_code.to_string()), ("execDuration", ran_for.as_secs().to_string())];
        if !is_told {
            self.emit_container_process(&record, "die", &attributes, pid);
            self.emit_volume_unmounts(&record);
        }
        self.inner.faults.pass("exit.told");
        let mut inner = container.lock();
        let report = inner.exit_report();
        inner.answer(&[WaitCondition::NotRunning, WaitCondition::NextExit], &report);
        (record, delay)
    }

    /// What the control group and the shim's note say; both are there until the task is deleted.
    async fn note_end(&self, container: &Container, run: &Run, status: ExitStatus, shim_lost: bool) {
        let record = container.record();
        let mut end = self.gather_end(&record, run.task.bundle(), status, shim_lost);
        end.killed_call = self.call_of_the_end(&end, record.state.pid, status).await;
        // Signals sent meanwhile stay.
        let mut inner = container.lock();
        let sent = std::mem::take(&mut inner.record.state.end.sent);
        inner.record.state.end = End { sent, ..end };
    }

    async fn tear_down(&self, container: &Container, run: &Run, was_lost: bool, spans: &mut Vec<Span>) {
        let log = |what: &str, error: &EngineError| tracing::warn!(container_id = %container.id, "cannot clean up {what}: {error}");
        let start_ns = now_ns();
        if !was_lost && let Err(error) = self.discard_task(&run.task).await {
            log("the task", &error);
        }
        spans.push(span("task.delete", container.id.short(), start_ns));
        self.inner.faults.pass("task.delete");
        let start_ns = now_ns();
        let endpoint = container.lock().record.endpoint.take();
        if let Some(endpoint) = endpoint
            && let Err(error) = self.detach_network(endpoint).await
        {
            log("the network", &error);
        }
        spans.push(span("network.detach", "", start_ns));
        self.inner.faults.pass("network.detach");
        let start_ns = now_ns();
        if let Err(error) = run.task.bundle().remove() {
            log("the bundle", &error.into());
        }
        spans.push(span("bundle.remove", "", start_ns));
        self.inner.faults.pass("bundle.remove");
    }

    /// Ends a task in whatever phase it is, with its shim.
    pub(crate) async fn discard_task(&self, task: &Task) -> Result<()> {
        if matches!(task.phase(), Phase::Created | Phase::Running | Phase::Paused) {
            // It may end by itself in this moment; the wait below decides.
            let killed = task.kill(Signal::KILL, true).await;
            if tokio::time::timeout(DISCARD_WAIT, task.wait()).await.is_err() {
                killed?;
                return Err(EngineError::internal("processes of the container do not end after SIGKILL"));
            }
        }
        match task.delete().await {
            Err(error) if !error.is_answer() => {
                // The shim is gone or hangs: clean up in its place.
                self.inner.tasks.clean_up_dead(&task_id(task)?).await?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    pub(crate) async fn detach_network(&self, endpoint: Endpoint) -> Result<()> {
        let network = self.network()?;
        self.blocking(move |_| Ok(network.detach(&endpoint)?)).await
    }
}

fn task_id(task: &Task) -> Result<berth_types::ContainerId> {
    let name = task.bundle().path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(name.parse()?)
}

fn duration_between(start: Option<Timestamp>, end: Timestamp) -> Duration {
    let nanos = start.map_or(0, |start| end.0.saturating_sub(start.0));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
