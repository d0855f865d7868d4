//! Looking into the store: `fsck`, and where a path comes from.

use std::path::PathBuf;

use berth_image::{FsckReport, LayerListing, PathStory};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Checks every blob, layer, snapshot and record; with `repair` makes again what can be made again. Containers go on running.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub async fn fsck(&self, is_repairing: bool) -> Result<FsckReport> {
        self.heavy(move |engine| {
            let is_container = |id: &str| engine.inner.registry.knows(id);
            Ok(engine.inner.images.fsck(is_repairing, &is_container, &|id| engine.use_now(id))?)
        })
        .await
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
