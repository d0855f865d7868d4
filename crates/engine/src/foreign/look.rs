//! What can be seen of a container of containerd's API, and its name in Docker's words.

use berth_cgroup::{Cgroup, Membership};
use berth_core::objects::{ContainerObject, Tenant};
use berth_types::ContainerId;

use super::Foreign;
use crate::api::Stats;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::names;

/// A name that Docker's face gave; the id stays what its maker knows.
pub(super) const NAME_LABEL: &str = "berth.container.name";

impl Engine {
    pub(crate) async fn foreign_pids(&self, foreign: &Foreign) -> Result<Vec<u32>> {
        let member = foreign.running().await.ok_or_else(|| foreign.not_running())?;
        Ok(member.shim.pids().await?)
    }

    /// From the group its init is in; empty when it does not run.
    pub(crate) async fn foreign_stats(&self, foreign: &Foreign, empty: Stats) -> Result<Stats> {
        let (Some(layout), Some(member)) = (self.inner.facts.cgroups.as_ref(), foreign.running().await) else {
            return Ok(empty);
        };
        let Some(path) = group_of(member.pid) else { return Ok(empty) };
        let sample = match Cgroup::open(layout, &path).and_then(|group| group.stats()) {
            Ok(sample) => sample,
            Err(_) if foreign.running().await.is_none() => return Ok(empty),
            Err(error) => return Err(error.into()),
        };
        Ok(self.stats_of(sample, member.pid))
    }

    /// Gives it a name for Docker's face; with containerd an id is for life.
    pub(crate) async fn foreign_rename(&self, foreign: &Foreign, new_name: &str) -> Result<()> {
        names::check(new_name)?;
        let id = foreign.object.id.clone();
        // Held until the label is written: nobody of the engine's own takes the name meanwhile.
        let owner = ContainerId::of_runtime(&id).map_err(|error| EngineError::invalid(error.to_string()))?;
        let _reserved = self.inner.registry.reserve(new_name, &owner)?;
        if self.foreign_named(new_name).is_some_and(|other| other.object.id != id) {
            return Err(crate::registry::conflict(new_name, &id));
        }
        let (old_name, new_name) = (foreign.name().to_owned(), new_name.to_owned());
        let (renamed, name) = (id.clone(), new_name.clone());
        self.blocking(move |engine| {
            engine.inner.objects.update::<ContainerObject>(&Tenant::docker(), &renamed, |object| {
                object.labels.insert(NAME_LABEL.to_owned(), name);
                Ok(())
            })?;
            Ok(())
        })
        .await?;
        let attributes = [
            ("image".to_owned(), foreign.object.image.clone()),
            ("name".to_owned(), new_name),
            ("oldName".to_owned(), format!("/{old_name}")),
        ];
        self.emit("container", "rename", &id, attributes.into());
        Ok(())
    }
}

impl Foreign {
    /// In Docker's words.
    pub(crate) fn name(&self) -> &str {
        self.object.labels.get(NAME_LABEL).unwrap_or(&self.object.id)
    }
}

/// The group of a process.
fn group_of(pid: u32) -> Option<String> {
    Membership::of(Some(pid)).ok()?.main().map(str::to_owned)
}
