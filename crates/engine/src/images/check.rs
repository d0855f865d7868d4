//! Looking into the store: `fsck`, and where a path comes from.

use std::path::PathBuf;

use berth_core::objects::{ContainerObject, Tenant};
use berth_image::tenant::OWN_SNAPSHOTTER;
use berth_image::{FsckReport, LayerListing, MountPoint, PathStory, Uses};

use crate::api::MountView;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::request::Request;

impl Engine {
    /// Checks every blob, layer, snapshot and record; with `repair` makes again what can be made again. Containers go on running.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub async fn fsck(&self, is_repairing: bool) -> Result<FsckReport> {
        self.heavy(move |engine| {
            let uses = Uses {
                is_container: &|id| engine.inner.registry.knows(id),
                of_image: &|id| engine.use_now(id),
                of_snapshot: &|tenant, key| engine.snapshot_user(tenant, key),
            };
            Ok(engine.inner.images.fsck(is_repairing, uses)?)
        })
        .await
    }

    /// Who may have a writable snapshot or a view of a client of containerd's API mounted; nobody, where it is that of containers without a task.
    pub(super) fn snapshot_user(&self, tenant: &str, key: &str) -> Option<String> {
        let told = |user: &str| Some(format!("{user} of namespace {tenant} is on it"));
        let read =
            tenant.parse::<Tenant>().ok().map(|tenant| (self.inner.objects.list::<ContainerObject>(&tenant), tenant));
        let Some((Ok(objects), tenant)) = read else { return told(&format!("snapshot {key:?}")) };
        let mut owners =
            objects.into_iter().filter(|o| o.snapshot_key == key && o.snapshotter == OWN_SNAPSHOTTER).peekable();
        if owners.peek().is_none() {
            return told(&format!("snapshot {key:?}, which its client may have mounted,"));
        }
        let has_task = |object: &ContainerObject| self.inner.fleet.is_taken(&tenant, &object.id);
        owners.find(has_task).and_then(|owner| told(&format!("container {}", owner.id)))
    }

    /// What each layer says about a path of a container or an image; a container's name goes first.
    ///
    /// # Errors
    /// `NotFound` when there is neither; `InvalidArgument` for a path that is not absolute or cannot be followed.
    pub async fn explain_path(&self, name: &str, path: PathBuf) -> Result<PathStory> {
        let container = self.find(name).ok();
        let name = name.to_owned();
        self.blocking(move |engine| {
            let Some(container) = container else {
                let image = engine.image_named(&name)?;
                return Ok(engine.inner.images.explain_path(&image, None, &path, &[])?);
            };
            let image = engine.inner.images.get_by_id(&container.record().image_id)?;
            let rootfs = engine.rootfs_of(&container)?;
            let mounts = engine.mount_points(&container)?;
            let mut story = engine.inner.images.explain_path(&image, Some(&rootfs), &path, &mounts)?;
            if let Some(mount) = &story.mounted {
                if mount.is_kept || container.record().state.is_running() {
                    story.is_there = engine.is_seen(&container, story.leads_to.as_ref().unwrap_or(&story.path))?;
                    story.verdict.push_str(if story.is_there { "" } else { "; nothing of that name is in it" });
                } else {
                    story.verdict.push_str("; it is there only while the container runs");
                }
            }
            Ok(story)
        })
        .await
    }

    /// What is mounted in a container when it runs, in words.
    fn mount_points(&self, container: &Container) -> Result<Vec<MountPoint>> {
        let record = container.record();
        let request = Request::parse(&record.config, &record.host, &self.inner.facts)?;
        let (spec, _) = self.spec_again(&record, &request)?;
        let of_us = spec.mounts().iter().flatten().map(|mount| {
            let what = match mount.typ().as_deref() {
                None | Some("bind" | "none") => "a file that the engine writes".to_owned(),
                Some(kind) => format!("a {kind} of the container's own"),
            };
            MountPoint { destination: mount.destination().clone(), what, is_kept: false }
        });
        let asked: Vec<MountPoint> = record.mounts.iter().map(mount_point).collect();
        let is_asked = |mount: &MountPoint| asked.iter().any(|other| other.destination == mount.destination);
        let of_us: Vec<MountPoint> = of_us.filter(|mount| !is_asked(mount)).collect();
        Ok(asked.into_iter().chain(of_us).collect())
    }

    /// The layers of an image, bottom to top, with the names in them when asked.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_layers(&self, name: &str, with_files: bool) -> Result<Vec<LayerListing>> {
        let name = name.to_owned();
        self.heavy(move |engine| Ok(engine.inner.images.layer_listing(&engine.image_named(&name)?, with_files)?)).await
    }
}

fn mount_point(view: &MountView) -> MountPoint {
    let what = match view.kind.as_str() {
        "volume" => format!("volume {}", view.name),
        "bind" => format!("{} of the host", view.source),
        kind => format!("a {kind}"),
    };
    let is_kept = matches!(view.kind.as_str(), "volume" | "bind");
    MountPoint { destination: PathBuf::from(&view.destination), what, is_kept }
}
