//! `pause` and `unpause`: the freezer.

use crate::api::Status;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// # Errors
    /// `FailedPrecondition` when it does not run or is paused already.
    pub async fn pause(&self, container_ref: &str) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_pause(&foreign, true).await;
        }
        let container = self.find(container_ref)?;
        let _operation = container.operation.lock().await;
        let run = container.running()?;
        if container.status() == Status::Paused {
            return Err(EngineError::conflict(format!("container {} is already paused", container.name())));
        }
        run.task.pause().await?;
        self.inner.faults.pass("pause.freeze");
        self.set_alive_status(&container, Status::Paused);
        self.emit_container(&container.record(), "pause", &[]);
        self.inner.faults.pass("pause.told");
        self.persist_logged(&container).await;
        self.inner.faults.pass("pause.keep");
        Ok(())
    }

    /// # Errors
    /// `FailedPrecondition` when it is not paused.
    pub async fn unpause(&self, container_ref: &str) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_pause(&foreign, false).await;
        }
        let container = self.find(container_ref)?;
        let _operation = container.operation.lock().await;
        if container.status() != Status::Paused {
            return Err(EngineError::conflict(format!("container {} is not paused", container.name())));
        }
        container.running()?.task.resume().await?;
        self.inner.faults.pass("unpause.thaw");
        self.set_alive_status(&container, Status::Running);
        self.emit_container(&container.record(), "unpause", &[]);
        self.inner.faults.pass("unpause.told");
        self.persist_logged(&container).await;
        self.inner.faults.pass("unpause.keep");
        Ok(())
    }

    /// An exit that came in between stays recorded.
    pub(crate) fn set_alive_status(&self, container: &crate::container::Container, status: Status) {
        let mut inner = container.lock();
        if inner.record.state.is_running() {
            inner.record.state.status = status;
        }
    }
}
