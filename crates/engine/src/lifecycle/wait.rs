//! `wait`: registered before it is answered, so that no exit can slip through between a request and its wait.

use berth_shim_client::ExitStatus;
use tokio::sync::oneshot;

use crate::api::WaitCondition;
use crate::container::{ExitReport, WAITERS_MAX, Waiter};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// Exit code and an error text of the engine's, if it could not start.
    ///
    /// # Errors
    /// `NotFound`; `ResourceExhausted` when very many already wait.
    pub async fn wait(&self, container_ref: &str, condition: WaitCondition) -> Result<ExitReport> {
        let receiver = self.wait_registered(container_ref, condition).await?;
        receiver.await.map_err(|_| EngineError::internal("the container is gone without an exit"))
    }

    /// Resolves once the wait is registered, so a caller can answer headers before the container starts. See `wait`.
    ///
    /// # Errors
    /// `NotFound`; `ResourceExhausted` when very many already wait.
    pub async fn wait_registered(
        &self,
        container_ref: &str,
        condition: WaitCondition,
    ) -> Result<oneshot::Receiver<ExitReport>> {
        let (answer, receiver) = oneshot::channel();
        if let Some(foreign) = self.foreign(container_ref) {
            let engine = self.clone();
            tokio::spawn(async move {
                let report = match engine.foreign_wait(&foreign).await {
                    Ok(code) => (code, None),
                    Err(error) => (ExitStatus::KILLED.cast_signed(), Some(error.message)),
                };
                // A waiter that hung up is no failure.
                drop(answer.send(report));
            });
            return Ok(receiver);
        }
        let container = self.find(container_ref)?;
        let mut inner = container.lock();
        let is_due = match condition {
            WaitCondition::NotRunning => {
                let state = &inner.record.state;
                !state.is_running() && state.status != crate::api::Status::Restarting
            }
            WaitCondition::NextExit => false,
            WaitCondition::Removed => inner.is_removed,
        };
        if is_due {
            let report = inner.exit_report();
            // The receiver is in our hand.
            drop(answer.send(report));
            return Ok(receiver);
        }
        // Waits of clients that hung up make room.
        inner.waiters.retain(|waiter| !waiter.answer.is_closed());
        if inner.waiters.len() >= WAITERS_MAX {
            return Err(EngineError::new(
                berth_types::ErrorClass::ResourceExhausted,
                format!("more than {WAITERS_MAX} clients wait for container \"{}\"", inner.record.name),
            ));
        }
        inner.waiters.push(Waiter { condition, answer });
        Ok(receiver)
    }
}
