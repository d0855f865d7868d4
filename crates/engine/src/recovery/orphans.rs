//! What a crash left without a record: bundles with their shims, cgroups, writable layers, container directories.

use std::collections::BTreeSet;

use berth_cgroup::{Cgroup, Layout};
use berth_core::Bundle;
use berth_types::{ContainerId, Signal};

use super::told::Told;
use crate::api::CgroupDriver;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

const KILL_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

impl Engine {
    /// Removes them; each failure is logged and the next one looked at.
    pub(super) async fn sweep_orphans(&self, told: &Told) {
        for id in self.traces_of_removed() {
            self.tell_missed_destroy(&id, told);
        }
        let bundles = Bundle::list(self.inner.tasks.tasks_dir()).unwrap_or_else(|error| {
            tracing::error!("{}", berth_types::report(&error));
            Vec::new()
        });
        for id in bundles.into_iter().filter(|id| !self.inner.registry.contains(id)) {
            if let Err(error) = self.sweep_task(&id).await {
                tracing::warn!(container_id = %id, "cannot sweep an orphaned task: {error}");
            }
        }
        let swept = self.blocking(|engine| {
            engine.sweep_cgroups();
            engine.sweep_layers()?;
            engine.sweep_directories()?;
            engine.sweep_volumes();
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!("cannot sweep orphans: {error}");
        }
    }

    /// Ids of containers that have no record any more: a removal that was cut short left them in a directory, a layer or the trash.
    fn traces_of_removed(&self) -> BTreeSet<String> {
        let paths = &self.inner.paths;
        let names = [paths.containers(), paths.trash()]
            .into_iter()
            .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten());
        let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.map(|name| name.split('.').next().unwrap_or_default().to_owned());
        let layers = self.inner.images.prepared().unwrap_or_default();
        let is_removed =
            |id: &String| is_full_id(id) && id.parse().is_ok_and(|id: ContainerId| !self.inner.registry.contains(&id));
        ids.chain(layers).filter(is_removed).collect()
    }

    async fn sweep_task(&self, id: &ContainerId) -> Result<()> {
        tracing::info!(container_id = %id, "sweeping an orphaned task");
        match self.inner.tasks.find(id).await {
            Ok((task, _)) => self.discard_task(&task).await?,
            Err(_) => drop(self.inner.tasks.clean_up_dead(id).await?),
        }
        Ok(self.inner.tasks.bundle(id).remove()?)
    }

    /// Groups below our own parent whose container is unknown.
    fn sweep_cgroups(&self) {
        let Some(layout) = &self.inner.facts.cgroups else { return };
        let parent = self.inner.options.cgroup_parent.trim_matches('/');
        if self.inner.options.cgroup_driver == CgroupDriver::Systemd {
            self.sweep_scopes(layout, parent);
            return;
        }
        let mut dirs: Vec<std::path::PathBuf> =
            layout.hierarchies.iter().map(|h| h.mount.join(h.own.trim_matches('/')).join(parent)).collect();
        dirs.extend(layout.hierarchies.iter().map(|h| h.mount.join(parent)));
        dirs.extend(layout.unified.iter().map(|u| u.mount.join(parent)));
        let mut ids: Vec<ContainerId> = Vec::new();
        for entry in dirs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten()) {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let id = entry.file_name().to_str().filter(|name| is_dir && is_full_id(name)).and_then(|n| n.parse().ok());
            ids.extend(id);
        }
        ids.sort_unstable();
        ids.dedup();
        for id in ids.into_iter().filter(|id| !self.inner.registry.contains(id)) {
            sweep_group(layout, &format!("/{parent}/{id}"), &id);
        }
    }

    /// Scopes of ours in our slice whose container is unknown.
    fn sweep_scopes(&self, layout: &Layout, slice: &str) {
        for name in Cgroup::scopes(layout, slice) {
            let id =
                name.strip_prefix("berth-").filter(|id| is_full_id(id)).and_then(|id| id.parse::<ContainerId>().ok());
            let Some(id) = id.filter(|id| !self.inner.registry.contains(id)) else { continue };
            sweep_group(layout, &format!("{slice}:berth:{id}"), &id);
        }
    }

    fn sweep_layers(&self) -> Result<()> {
        for id in self.inner.images.prepared()? {
            let is_known = id.parse::<ContainerId>().is_ok_and(|id| self.inner.registry.contains(&id));
            if !is_known {
                self.inner.images.discard(&id)?;
            }
        }
        Ok(())
    }

    fn sweep_directories(&self) -> Result<()> {
        let dir = self.inner.paths.containers();
        let entries = std::fs::read_dir(&dir).map_err(|error| EngineError::io("list", &dir, &error))?;
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
            if let Some(id) = id.filter(|id| !self.inner.registry.contains(id)) {
                self.trash_container_dir(&id)?;
            }
        }
        Ok(())
    }
}

fn sweep_group(layout: &Layout, path: &str, id: &ContainerId) {
    let swept = Cgroup::open(layout, path).and_then(|group| {
        group.kill_all(Signal::KILL, KILL_WAIT)?;
        group.delete(KILL_WAIT)
    });
    if let Err(error) = swept {
        tracing::warn!(container_id = %id, "cannot sweep a cgroup: {}", berth_types::report(&error));
    }
}

/// Only what we name so ourselves: a foreign group below our parent stays.
fn is_full_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
