//! Looking into the store: `fsck`, and where a path comes from.

use std::path::PathBuf;

use berth_core::objects::{ContainerObject, Tenant};
use berth_image::tenant::OWN_SNAPSHOTTER;
use berth_image::{FsckReport, LayerListing, PathStory, Uses};

use crate::engine::Engine;
use crate::error::Result;

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
    fn snapshot_user(&self, tenant: &str, key: &str) -> Option<String> {
        let told = |user: &str| Some(format!("{user} of namespace {tenant} is on it"));
        let read =
            tenant.parse::<Tenant>().ok().map(|tenant| (self.inner.objects.list::<ContainerObject>(&tenant), tenant));
        let Some((Ok(objects), tenant)) = read else { return told(&format!("snapshot {key:?}")) };
        let mut owners =
            objects.into_iter().filter(|o| o.snapshot_key == key && o.snapshotter == OWN_SNAPSHOTTER).peekable();
        if owners.peek().is_none() {
            return told(&format!("snapshot {key:?}, which its client may have mounted,"));
        }
        let has_task = |object: &ContainerObject| self.inner.fleet.member(&tenant, &object.id).is_ok();
        owners.find(has_task).and_then(|owner| told(&format!("container {}", owner.id)))
    }

    /// What each layer says about a path of a container or an image; a container's name goes first.
    ///
    /// # Errors
    /// `NotFound` when there is neither; `InvalidArgument` for a path that is not absolute.
    pub async fn explain_path(&self, name: &str, path: &str) -> Result<PathStory> {
        let container = self.find(name).ok();
        let (name, path) = (name.to_owned(), PathBuf::from(path));
        self.blocking(move |engine| {
            let Some(container) = container else {
                let image = engine.image_named(&name)?;
                return Ok(engine.inner.images.explain_path(&image, None, &path)?);
            };
            let image = engine.inner.images.get_by_id(&container.record().image_id)?;
            let rootfs = engine.rootfs_of(&container)?;
            Ok(engine.inner.images.explain_path(&image, Some(&rootfs), &path)?)
        })
        .await
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
