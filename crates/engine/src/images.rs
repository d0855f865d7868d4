//! Images as the faces see them: views, names, archives. The work is the image store's, on blocking threads.

mod check;
mod collector;
mod commit;
mod filter;
pub(crate) mod pull;
mod push;
mod remote;
mod transfer;

pub use collector::CollectionBudget;
pub(crate) use collector::ImageHolds;
pub(crate) use commit::COMMIT_PAUSE;

use std::collections::BTreeMap;

use berth_image::{Image, ImageUse};
use berth_types::{Digest, Reference};

use crate::api::{Filters, HistoryEntry, ImageDeleted, ImageView, PruneOutcome};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::filters;
use crate::lifecycle::no_such_image;

use filter::ImageFilter;

impl Engine {
    /// Newest first. `all` changes nothing: there are no intermediate images.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn images(&self, all: bool, filters: &Filters) -> Result<Vec<ImageView>> {
        let _: bool = all;
        filters::check(filters, &filters::IMAGE_KEYS)?;
        let filters = filters.clone();
        self.blocking(move |engine| {
            let images = engine.inner.images.list()?;
            let filter = ImageFilter::parse(&filters, |name| Ok(created(&engine.image_named(name)?)))?;
            let uses = engine.image_uses();
            let mut views: Vec<ImageView> =
                images.iter().filter(|image| filter.fits(image)).map(|image| view(image, &uses)).collect();
            views.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.repo_tags.cmp(&b.repo_tags)));
            Ok(views)
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `InvalidArgument` when an id prefix fits several.
    pub async fn image(&self, image_ref: &str) -> Result<ImageView> {
        let name = image_ref.to_owned();
        self.blocking(move |engine| Ok(view(&engine.image_named(&name)?, &engine.image_uses()))).await
    }

    /// Newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn history(&self, image_ref: &str) -> Result<Vec<HistoryEntry>> {
        let name = image_ref.to_owned();
        self.blocking(move |engine| {
            let image = engine.image_named(&name)?;
            let items = engine.inner.images.history(&image.id.to_string())?;
            let entry = |(index, item): (usize, berth_image::HistoryItem)| HistoryEntry {
                id: if index == 0 { image.id.to_string() } else { "<missing>".to_owned() },
                created: item.created,
                created_by: item.created_by,
                size_bytes: item.size_bytes,
                comment: item.comment,
                tags: if index == 0 { tags(&image) } else { Vec::new() },
            };
            Ok(items.into_iter().enumerate().map(entry).collect())
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `InvalidArgument` when the target is not a name.
    pub async fn tag(&self, image_ref: &str, target: &str) -> Result<()> {
        let name = image_ref.to_owned();
        let target: Reference = target.parse::<Reference>()?.with_default_tag();
        if target.digest().is_some() {
            return Err(EngineError::invalid("refusing to create a tag with a digest reference"));
        }
        self.blocking(move |engine| {
            let image = engine.image_named(&name)?;
            engine.inner.images.tag(&image.id.to_string(), &target)?;
            engine.emit_image("tag", &image.id.to_string(), &target.familiar());
            Ok(())
        })
        .await
    }

    /// `no_prune` changes nothing: layers are kept as long as an image needs them, and no longer.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is used, or has several names and `force` is not set.
    pub async fn remove_image(&self, image_ref: &str, force: bool, no_prune: bool) -> Result<Vec<ImageDeleted>> {
        let _: bool = no_prune;
        let name = image_ref.to_owned();
        self.blocking(move |engine| {
            let image = engine.image_named(&name)?;
            engine.inner.faults.check("rmi.find")?;
            let removed = engine.inner.images.remove(&name, force, &|id| engine.use_now(id))?;
            engine.inner.faults.pass("rmi.remove");
            let told = engine.tell_removed(&image.id, removed);
            engine.inner.faults.pass("rmi.told");
            Ok(told)
        })
        .await
    }

    /// Without `dangling=false` only images without a name; images of containers stay.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn prune_images(&self, filters: &Filters) -> Result<PruneOutcome> {
        filters::check(filters, &filters::PRUNE_KEYS)?;
        let filters = filters.clone();
        self.heavy(move |engine| {
            let takes_named =
                filters.get("dangling").into_iter().flatten().any(|v| matches!(v.as_str(), "false" | "0"));
            let filter = ImageFilter::parse_prune(&filters)?;
            let uses = engine.image_uses();
            let mut due = engine.inner.images.list()?;
            due.retain(|image| {
                use_of(&uses, &image.id) == ImageUse::Unused
                    && (takes_named || tags(image).is_empty())
                    && filter.fits(image)
            });
            let due: Vec<Digest> = due.iter().map(|image| image.id).collect();
            // Those that somebody began to use meanwhile stay.
            let (removed, collected) = engine.inner.images.remove_unused(&due, &|id| engine.use_now(id))?;
            let mut outcome = PruneOutcome { reclaimed_bytes: collected.bytes, ..PruneOutcome::default() };
            for removed in removed {
                let Some(id) = removed.deleted.first().copied() else { continue };
                for item in engine.tell_removed(&id, removed) {
                    outcome.deleted.push(match item {
                        ImageDeleted::Untagged(name) => name,
                        ImageDeleted::Deleted(id) => id,
                    });
                }
            }
            engine.emit("image", "prune", "", [("reclaimed".to_owned(), outcome.reclaimed_bytes.to_string())].into());
            Ok(outcome)
        })
        .await
    }

    /// An image a person named (our embedded `hello` is loaded when it is asked for the first time), with Docker's words when there is none.
    pub(crate) fn image_named(&self, name: &str) -> Result<Image> {
        if name.is_empty() {
            return Err(EngineError::invalid("no image is named").with_hint("berth images lists what there is"));
        }
        match self.inner.images.get(name) {
            Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::NotFound => {
                if self.load_embedded_hello(name)? {
                    return Ok(self.inner.images.get(name)?);
                }
                Err(no_such_image(name))
            }
            other => Ok(other?),
        }
    }

    /// Which images containers use, and whether one of them runs.
    pub(crate) fn image_uses(&self) -> BTreeMap<Digest, (i64, ImageUse)> {
        let mut uses: BTreeMap<Digest, (i64, ImageUse)> = BTreeMap::new();
        for container in self.inner.registry.all() {
            let inner = container.lock();
            let id = inner.record.id.short().to_owned();
            let is_running = inner.record.state.is_running();
            let entry = uses.entry(inner.record.image_id).or_insert((0, ImageUse::Unused));
            entry.0 += 1;
            if is_running {
                entry.1 = ImageUse::Running(id);
            } else if entry.1 == ImageUse::Unused {
                entry.1 = ImageUse::Stopped(id);
            }
        }
        uses
    }

    fn tell_removed(&self, id: &Digest, removed: berth_image::Removed) -> Vec<ImageDeleted> {
        let mut items = Vec::new();
        for reference in removed.untagged {
            self.emit_image("untag", &id.to_string(), &reference.familiar());
            items.push(ImageDeleted::Untagged(reference.familiar()));
        }
        for digest in removed.deleted {
            self.emit_image("delete", &digest.to_string(), &digest.to_string());
            items.push(ImageDeleted::Deleted(digest.to_string()));
        }
        items
    }

    /// As Docker's clients know it: its name for overlays is overlay2.
    pub fn storage_driver(&self) -> String {
        match self.inner.images.snapshotter() {
            "overlay" => "overlay2".to_owned(),
            other => other.to_owned(),
        }
    }

    pub(crate) fn emit_image(&self, action: &str, id: &str, name: &str) {
        self.emit("image", action, id, [("name".to_owned(), name.to_owned())].into());
    }
}

pub(crate) fn use_of(uses: &BTreeMap<Digest, (i64, ImageUse)>, id: &Digest) -> ImageUse {
    uses.get(id).map_or(ImageUse::Unused, |(_, usage)| usage.clone())
}

pub(crate) fn created(image: &Image) -> Option<berth_types::Timestamp> {
    image.config.created().as_deref().and_then(|text| text.parse().ok())
}

pub(crate) fn tags(image: &Image) -> Vec<String> {
    image.references.iter().filter(|r| r.tag().is_some()).map(Reference::familiar).collect()
}

/// Under which digests registries have the image; one that came from none has its manifest's.
fn repo_digests(image: &Image) -> Vec<String> {
    let known: Vec<&Reference> = image.references.iter().filter(|r| r.digest().is_some()).collect();
    let mut names: Vec<String> = known.iter().map(|r| r.familiar()).collect();
    let others = image.references.iter().map(Reference::repository);
    for repository in others.filter(|name| !known.iter().any(|r| r.repository() == *name)) {
        if let Ok(reference) = repository.parse::<Reference>() {
            names.push(format!("{}@{}", reference.familiar_repository(), image.manifest));
        }
    }
    names.sort();
    names.dedup();
    names
}

pub(crate) fn labels(image: &Image) -> BTreeMap<String, String> {
    let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
    labels.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn view(image: &Image, uses: &BTreeMap<Digest, (i64, ImageUse)>) -> ImageView {
    let last = image.config.history().as_deref().and_then(<[_]>::last);
    ImageView {
        id: image.id,
        repo_tags: tags(image),
        repo_digests: repo_digests(image),
        created: created(image),
        size_bytes: image.size_bytes,
        architecture: image.config.architecture().to_string(),
        os: image.config.os().to_string(),
        author: image.config.author().clone().unwrap_or_default(),
        comment: last.and_then(|item| item.comment().clone()).unwrap_or_default(),
        config: image.config_json.get("config").cloned().unwrap_or(serde_json::Value::Null),
        diff_ids: image.diff_ids.clone(),
        labels: labels(image),
        layer_dirs: image.layers.iter().rev().map(|layer| layer.directory.clone()).collect(),
        containers: uses.get(&image.id).map_or(0, |(count, _)| *count),
        last_tagged: image.last_tagged,
    }
}
