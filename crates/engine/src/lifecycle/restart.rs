//! `restart` by a person, and the restarts of the policy.

use std::sync::Arc;
use std::time::Duration;

use berth_types::Signal;

use crate::api::Status;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Stops (if it runs) and starts.
    ///
    /// # Errors
    /// Those of `stop` and `start_container`.
    pub async fn restart(
        &self,
        container_ref: &str,
        signal: Option<Signal>,
        timeout_seconds: Option<i64>,
    ) -> Result<()> {
        let container = self.find(container_ref)?;
        let engine = self.clone();
        let job = tokio::spawn(async move {
            let _operation = container.operation.lock().await;
            engine.stop_locked(&container, signal, timeout_seconds).await?;
            engine.start_locked(&container, true).await?;
            engine.emit_container(&container.record(), "restart", &[]);
            Ok(())
        });
        job.await.unwrap_or_else(|_| Err(crate::error::EngineError::internal("the restart ended early")))
    }

    /// Starts the container again after the back-off, unless somebody stops, starts or removes it meanwhile.
    pub(crate) fn restart_later(&self, container: Arc<Container>, delay: Duration) {
        let engine = self.clone();
        let generation = container.lock().generation;
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _operation = container.operation.lock().await;
            {
                let mut inner = container.lock();
                let is_current = inner.generation == generation && inner.record.state.status == Status::Restarting;
                if !is_current {
                    return;
                }
                inner.record.state.restart_count = inner.record.state.restart_count.saturating_add(1);
            }
            if let Err(error) = engine.start_locked(&container, true).await {
                tracing::warn!(container_id = %container.id, "restart by policy failed: {error}");
            }
        });
    }
}
