//! `rm`: the record, the name and the writable layer; what takes long goes to the trash.

use std::sync::Arc;

use crate::api::{Status, WaitCondition};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::why::end::Sender;

impl Engine {
    /// `force` ends a running container first. `volumes`: its anonymous volumes go with it, as they do with `--rm`.
    ///
    /// # Errors
    /// `FailedPrecondition` when it runs and `force` is not set.
    pub async fn remove(&self, container_ref: &str, force: bool, volumes: bool) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_remove(&foreign, force).await;
        }
        let container = self.find(container_ref)?;
        let _operation = container.operation.lock().await;
        if container.lock().is_removed {
            return Ok(()); // Somebody else was faster; it is gone, as asked.
        }
        let (status, name, run) = {
            let mut inner = container.lock();
            if force {
                inner.generation += 1;
                inner.record.state.stopped_by_user = true;
            }
            (inner.record.state.status, inner.record.name.clone(), inner.run.clone())
        };
        if matches!(status, Status::Running | Status::Paused | Status::Restarting) && !force {
            let state = if status == Status::Restarting { "restarting" } else { "running" };
            return Err(EngineError::conflict(format!("cannot remove container \"/{name}\": container is {state}: stop the container before removing or force remove"))
                .with_hint(format!("berth rm -f {name}")));
        }
        if let Some(run) = run
            && matches!(status, Status::Running | Status::Paused)
        {
            self.kill_run(&container, &run, Sender::Remove, None).await?;
        }
        self.inner.faults.check("remove.end")?;
        self.await_teardown(&container).await?;
        self.remove_locked(&container, volumes).await
    }

    /// The caller holds `operation`; the container does not run and is torn down.
    pub(crate) async fn remove_locked(&self, container: &Arc<Container>, with_volumes: bool) -> Result<()> {
        let with_volumes = {
            let mut inner = container.lock();
            if inner.is_removed {
                return Ok(());
            }
            inner.generation += 1;
            inner.record.state.status = Status::Removing;
            with_volumes || inner.record.host.auto_remove
        };
        let target = Arc::clone(container);
        let forgotten = self.blocking(move |engine| engine.forget(&target, with_volumes)).await;
        if let Err(error) = forgotten {
            let mut inner = container.lock();
            inner.record.state.status = Status::Dead;
            inner.record.state.error.clone_from(&error.message);
            return Err(error.while_doing(format!("cannot remove container \"{}\"", container.id.short())));
        }
        // Told at the moment nobody finds it any more.
        self.inner.registry.remove(container);
        let record = container.record();
        self.emit_container(&record, "destroy", &[]);
        self.inner.faults.pass("remove.told");
        self.inner.execs.forget_container(&container.id);
        self.free_hidden_image(&record.image_id).await;
        let mut inner = container.lock();
        inner.pending_attaches.clear();
        inner.run = None;
        let report = inner.exit_report();
        let all = [WaitCondition::Removed, WaitCondition::NotRunning, WaitCondition::NextExit];
        inner.answer(&all, &report);
        let spans = std::mem::take(&mut inner.spans);
        drop(inner);
        self.inner.traces.keep(record.id.clone(), record.name, spans);
        self.empty_trash();
        Ok(())
    }

    /// An image that was removed by force while this container was on it goes with the last such container.
    async fn free_hidden_image(&self, id: &berth_types::Digest) {
        let id = *id;
        let freed = self.blocking(move |engine| {
            if engine.inner.images.is_hidden(&id)? {
                engine.inner.images.collect(&|id| engine.use_now(id))?;
            }
            Ok(())
        });
        if let Err(error) = freed.await {
            // It goes with the next removal of any image.
            tracing::warn!(error = berth_types::report(&error), "an image nobody can see could not be freed");
        }
    }

    /// First the record (from then on it does not exist), then what belongs to it; a crash in between leaves orphans that recovery sweeps.
    fn forget(&self, container: &Container, with_volumes: bool) -> Result<()> {
        let record = {
            let _turn = container.persisting.lock();
            let record = container.record();
            self.keep_volumes(&record, with_volumes);
            self.inner.store.delete(&record.id, record.host.auto_remove)?;
            self.inner.faults.pass("metadata.delete");
            container.lock().is_removed = true;
            record
        };
        if let Some(block) = record.id_block {
            self.inner.id_blocks.free(block);
        }
        self.inner.images.discard(record.id.as_str())?;
        self.inner.faults.pass("snapshot.remove");
        if with_volumes {
            self.remove_anonymous_volumes(&record);
        }
        self.inner.faults.pass("volumes.remove");
        self.trash_container_dir(&record.id)?;
        self.inner.faults.pass("container-directory.remove");
        Ok(())
    }
}
