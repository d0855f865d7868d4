//! The engine's own containers and images in containerd's shape, for the face that speaks containerd's API.
//!
//! A seam, no policy: what Docker's face made is shown, not copied, so the two can never disagree. Everything here belongs to the tenant
//! `default`. An exited container has no task, as with containerd: the engine deletes a task when it has ended.

use std::sync::Arc;

use berth_core::objects::{AnyValue, ContainerObject, Descriptor, ImageName, Labels, Objects, RuntimeChoice};
use berth_core::{EventLog, Phase};
use berth_shim_client::ShimClient;
use berth_types::Timestamp;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Record;

/// How containerd's clients pack an OCI document.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const OWN_RUNTIME: &str = "io.containerd.berth.v1";
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

    /// Images by their names. May block on the disk.
    ///
    /// # Errors
    /// When the image store cannot be read.
    pub async fn image_names(&self) -> Result<Vec<ImageName>> {
        self.blocking(|engine| {
            let images = engine.inner.images.list()?;
            let mut names = Vec::new();
            for image in images {
                let Some(target) = engine.inner.images.target(&image)? else { continue };
                let tagged = image.last_tagged.unwrap_or_default();
                names.extend(image.references.iter().map(|reference| ImageName {
                    name: reference.to_string(),
                    labels: Labels::new(),
                    target: Descriptor {
                        media_type: target.media_type.clone(),
                        digest: target.digest.to_string(),
                        size: i64::try_from(target.size_bytes).unwrap_or(i64::MAX),
                        annotations: Labels::new(),
                    },
                    created_at: tagged,
                    updated_at: tagged,
                }));
            }
            names.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(names)
        })
        .await
    }

    /// Whether Docker's face knows an image by exactly this name.
    pub async fn has_image_name(&self, name: &str) -> bool {
        let name = name.to_owned();
        let found = self.blocking(move |engine| Ok(engine.inner.images.has_name(&name)?)).await;
        found.unwrap_or(false)
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
