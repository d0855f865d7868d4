//! `stop`: the container's own stop signal, a time to end, then SIGKILL to all of it.

use std::sync::Arc;
use std::time::Duration;

use berth_types::Signal;

use crate::api::Status;
use crate::container::{Container, Run, RunProgress};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::request::stop_signal;
use crate::why::disposition_of;
use crate::why::end::Sender;

const DEFAULT_TIMEOUT_SECONDS: i64 = 10;
/// How long killed processes may take to end: only one that sleeps in the kernel takes longer.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Ok(false): it was not running. `timeout_seconds`: -1 waits for ever.
    ///
    /// # Errors
    /// `DeadlineExceeded` when processes survive SIGKILL (they sleep in the kernel).
    pub async fn stop(
        &self,
        container_ref: &str,
        signal: Option<Signal>,
        timeout_seconds: Option<i64>,
    ) -> Result<bool> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_stop(&foreign, signal, timeout_seconds).await;
        }
        let container = self.find(container_ref)?;
        let _operation = container.operation.lock().await;
        container.ensure_present()?;
        let was_running = self.stop_locked(&container, signal, timeout_seconds).await?;
        self.persist_logged(&container).await;
        self.inner.faults.pass("stop.keep");
        Ok(was_running)
    }

    /// The caller holds `operation`.
    pub(crate) async fn stop_locked(
        &self,
        container: &Arc<Container>,
        signal: Option<Signal>,
        timeout_seconds: Option<i64>,
    ) -> Result<bool> {
        let (run, config) = {
            let mut inner = container.lock();
            inner.generation += 1;
            inner.record.state.stopped_by_user = true;
            if inner.record.state.status == Status::Restarting {
                inner.record.state.status = Status::Exited;
                return Ok(true);
            }
            if !inner.record.state.is_running() {
                return Ok(false);
            }
            (inner.run.clone(), inner.record.config.clone())
        };
        let Some(run) = run else { return Ok(false) };
        let signal = match signal {
            Some(signal) => signal,
            None => stop_signal(&config)?,
        };
        let timeout = timeout_seconds.or(config.stop_timeout_seconds).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        self.end_run(container, &run, signal, timeout).await?;
        self.inner.faults.check("stop.end")?;
        self.emit_container(&container.record(), "stop", &[]);
        self.inner.faults.pass("stop.told");
        Ok(true)
    }

    async fn end_run(
        &self,
        container: &Arc<Container>,
        run: &Arc<Run>,
        signal: Signal,
        timeout_seconds: i64,
    ) -> Result<()> {
        if timeout_seconds != 0 {
            self.signal_and_tell(container, run, signal, Sender::Stop).await?;
            self.inner.faults.check("stop.signal")?;
            if container.status() == Status::Paused && run.task.resume().await.is_ok() {
                container.lock().record.state.status = Status::Running;
            }
            let ended = run.reached(RunProgress::Ended);
            match u64::try_from(timeout_seconds) {
                Err(_) => {
                    ended.await;
                    return Ok(());
                }
                Ok(seconds) => {
                    if tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok() {
                        return Ok(());
                    }
                }
            }
        }
        self.kill_run(container, run, Sender::StopDeadline, Some(signal)).await
    }

    /// SIGKILL to every process of the container, and the wait for the end. `unheeded`: the signal before, which did not end it.
    pub(crate) async fn kill_run(
        &self,
        container: &Arc<Container>,
        run: &Arc<Run>,
        by: Sender,
        unheeded: Option<Signal>,
    ) -> Result<()> {
        let disposition = unheeded.and_then(|signal| disposition_of(run.task.pid(), signal));
        {
            let end = &mut container.lock().record.state.end;
            end.note(Signal::KILL, by);
            if let Some(sent) = end.sent.last_mut() {
                sent.disposition = disposition;
            }
        }
        let killed = run.task.kill(Signal::KILL, true).await;
        if killed.is_ok() {
            self.emit_container(&container.record(), "kill", &[("signal", Signal::KILL.number().to_string())]);
        }
        if tokio::time::timeout(KILL_WAIT, run.reached(RunProgress::Ended)).await.is_ok() {
            return Ok(());
        }
        killed?;
        Err(EngineError::new(
            berth_types::ErrorClass::DeadlineExceeded,
            format!("container \"{}\" does not end after SIGKILL: {}", container.name(), blocked_processes(run).await),
        )
        .with_hint("a process waits in the kernel for a device or mount; it ends when that answers"))
    }

    /// One signal to init, with its event. A container that ends in this moment is no failure.
    pub(crate) async fn signal_and_tell(
        &self,
        container: &Arc<Container>,
        run: &Run,
        signal: Signal,
        by: Sender,
    ) -> Result<()> {
        // Before it is sent: the end may be told before this call returns.
        container.lock().record.state.end.note(signal, by);
        match run.task.kill(signal, false).await {
            Ok(()) => {}
            Err(_) if *run.progress.borrow() >= RunProgress::Ended => return Ok(()),
            Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.emit_container(&container.record(), "kill", &[("signal", signal.number().to_string())]);
        Ok(())
    }
}

/// Pid, name and kernel function of processes that are left, for the person who must find the blocking mount.
async fn blocked_processes(run: &Run) -> String {
    let pids = run.task.pids().await.unwrap_or_default();
    let describe = |pid: &u32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        format!("pid {pid} ({}) in {}", read("comm").trim(), read("wchan").trim())
    };
    let described: Vec<String> = pids.iter().take(8).map(describe).collect();
    if described.is_empty() { "its processes are not known".to_owned() } else { described.join(", ") }
}
