//! `rename`.

use crate::engine::Engine;
use crate::error::Result;
use crate::names;
use crate::registry::conflict;

impl Engine {
    /// # Errors
    /// `AlreadyExists` when the name is taken, `InvalidArgument` when it is not a name.
    pub async fn rename(&self, container_ref: &str, new_name: &str) -> Result<()> {
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name);
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_rename(&foreign, new_name).await;
        }
        let container = self.find(container_ref)?;
        names::check(new_name)?;
        if let Some(foreign) = self.foreign_named(new_name) {
            return Err(conflict(new_name, &foreign.object.id));
        }
        let _operation = container.operation.lock().await;
        container.ensure_present()?;
        let old_name = container.name();
        self.inner.registry.rename(&container, new_name)?;
        let kept = match self.inner.faults.check("rename.name") {
            Ok(()) => self.persist(&container).await,
            Err(injected) => Err(injected),
        };
        if let Err(error) = kept {
            // Not kept: the old name comes back, as the store has it.
            self.inner.registry.rename(&container, &old_name)?;
            return Err(error);
        }
        self.inner.faults.pass("rename.keep");
        self.emit_container(&container.record(), "rename", &[("oldName", format!("/{old_name}"))]);
        self.inner.faults.pass("rename.told");
        Ok(())
    }
}
