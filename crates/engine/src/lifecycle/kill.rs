//! `kill`: one signal, now.

use berth_types::Signal;

use crate::container::RunProgress;
use crate::engine::Engine;
use crate::error::{Doing, Result};
use crate::lifecycle::KILL_WAIT;
use crate::why::end::Sender;

impl Engine {
    /// Signals the container's init; SIGKILL (the default) ends all its processes and returns once they have ended: whoever kills may remove next.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn kill(&self, container_ref: &str, signal: Option<Signal>) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_kill(&foreign, signal).await;
        }
        let container = self.find(container_ref)?;
        let signal = signal.unwrap_or(Signal::KILL);
        let run = self.live(&container).await.map_err(|error| crate::error::EngineError {
            message: format!("cannot kill container: {}: {}", container_ref, error.message),
            ..error
        })?;
        // Without `operation`: a kill must get through while a stop waits.
        let is_end = signal == Signal::KILL;
        if is_end {
            {
                let state = &mut container.lock().record.state;
                state.stopped_by_user = true;
                state.end.note(signal, Sender::Kill);
            }
            let killed = run.task.kill(signal, true).await;
            if *run.progress.borrow() == RunProgress::Alive {
                killed.doing(|| format!("cannot kill container: {container_ref}"))?;
            }
            self.emit_container(&container.record(), "kill", &[("signal", signal.number().to_string())]);
            // One that does not end in time was killed all the same; `ps` shows it.
            drop(tokio::time::timeout(KILL_WAIT, run.reached(RunProgress::Ended)).await);
            return Ok(());
        }
        if stops(&container.lock().record.config.stop_signal, signal) {
            container.lock().record.state.stopped_by_user = true;
        }
        self.signal_and_tell(&container, &run, signal, Sender::Kill).await
    }
}

/// A person who sends the stop signal wants it down: `unless-stopped` and `always` leave it so.
fn stops(stop_signal: &str, signal: Signal) -> bool {
    let own = stop_signal.parse::<Signal>().unwrap_or(Signal::TERM);
    own == signal || signal == Signal::TERM
}
