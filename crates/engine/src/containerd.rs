//! The engine's own containers in containerd's shape, for the face that speaks containerd's API.
//!
//! A seam, no policy: what Docker's face made is shown, not copied, so the two can never disagree. Everything here belongs to the tenant
//! `default`. An exited container has no task, as with containerd: the engine deletes a task when it has ended.

mod registry;
mod transfer;

use std::sync::Arc;

use berth_core::objects::{AnyValue, ContainerObject, Objects, RuntimeChoice};
use berth_core::{EventLog, Fleet, Phase};
use berth_image::{ImageStore, ImageUse};
use berth_shim_client::OWN_RUNTIME;
use berth_shim_client::ShimClient;
use berth_types::{Digest, Labels, Timestamp};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Record;
pub use registry::{TenantPull, TenantPulled, TenantPush};
pub use transfer::{TransferLease, TransferStep};

/// How containerd's clients pack an OCI document.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SNAPSHOTTER: &str = "overlayfs";
/// Marks what Docker's face made, with the container's name.
const NAME_LABEL: &str = "berth.container.name";

/// A container's running side.
#[derive(Debug, Clone)]
pub struct TaskSeam {
    pub id: String,
    pub pid: u32,
    pub phase: Phase,
    pub is_terminal: bool,
    pub shim: ShimClient,
}

impl Engine {
    /// Objects made through containerd's API.
    pub fn objects(&self) -> &Arc<Objects> {
        &self.inner.objects
    }

    /// Tasks of containers that were made through containerd's API.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.inner.fleet
    }

    /// The one log of all faces.
    pub fn event_log(&self) -> &Arc<EventLog> {
        &self.inner.events
    }

    /// This data root's own id: 64 hex digits.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// All containers of this engine as container objects.
    pub fn container_objects(&self) -> Vec<ContainerObject> {
        self.inner.registry.all().iter().map(|container| self.container_object_of(container)).collect()
    }

    /// By its full id.
    pub fn container_object(&self, id: &str) -> Option<ContainerObject> {
        self.by_full_id(id).map(|container| self.container_object_of(&container))
    }

    /// The task of a container that runs or is paused.
    pub fn task_seam(&self, id: &str) -> Option<TaskSeam> {
        self.by_full_id(id).and_then(|container| seam_of(&container))
    }

    pub fn task_seams(&self) -> Vec<TaskSeam> {
        self.inner.registry.all().iter().filter_map(|container| seam_of(container)).collect()
    }

    /// The store of images, blobs, snapshots and leases of all tenants.
    pub fn image_store(&self) -> &Arc<ImageStore> {
        &self.inner.images
    }

    /// Removes an image's name; what containers run on stays until they go. May block on the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_image_name(&self, tenant: &str, name: &str, is_synchronous: bool) -> Result<()> {
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        self.blocking(move |engine| {
            let uses = engine.image_uses();
            let used_by = |id: &Digest| uses.get(id).map_or(ImageUse::Unused, |(_, used)| used.clone());
            Ok(engine.inner.images.tenant(&tenant)?.delete_image(&name, is_synchronous, &used_by)?)
        })
        .await
    }

    /// Records an event of another face; a full disk is logged, live readers get it all the same.
    pub fn record_event(&self, occurrence: berth_core::events::Occurrence) {
        self.record(occurrence);
    }

    fn by_full_id(&self, id: &str) -> Option<Arc<Container>> {
        self.inner.registry.find(id).ok().filter(|container| container.id.as_str() == id)
    }

    fn container_object_of(&self, container: &Container) -> ContainerObject {
        let record = container.record();
        let spec = std::fs::read(self.inner.tasks.bundle(&record.id).file("config.json")).ok();
        ContainerObject {
            id: record.id.to_string(),
            labels: labels(&record),
            image: record.image_name.clone(),
            runtime: RuntimeChoice { name: OWN_RUNTIME.to_owned(), options: None },
            spec: spec.map(|value| AnyValue { type_url: SPEC_TYPE.to_owned(), value }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: record.id.to_string(),
            created_at: record.created,
            updated_at: last_change(&record),
            ..Default::default()
        }
    }

    /// Removes a container of Docker's face that does not run.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs.
    pub async fn remove_by_full_id(&self, id: &str) -> Result<()> {
        self.by_full_id(id).ok_or_else(|| EngineError::not_found(format!("container {id:?}: not found")))?;
        self.remove(id, false, false).await
    }
}

fn labels(record: &Record) -> Labels {
    let mut labels = record.config.labels.clone();
    labels.insert(NAME_LABEL.to_owned(), record.name.clone());
    labels
}

fn last_change(record: &Record) -> Timestamp {
    let changes = [record.state.started_at, record.state.finished_at];
    changes.into_iter().flatten().max().unwrap_or(record.created)
}

fn seam_of(container: &Container) -> Option<TaskSeam> {
    let run = container.running().ok()?;
    let is_terminal = container.lock().record.config.tty;
    Some(TaskSeam {
        id: container.id.to_string(),
        pid: run.task.pid(),
        phase: run.task.phase(),
        is_terminal,
        shim: run.task.shim().clone(),
    })
}
