//! The automatic collection: what nothing leads to any more, and images no container uses when they are old or when there is too little space.
//!
//! Who creates a container holds its image from before it is looked up until the container is in the registry; whether an image is used is asked
//! under the image store's lock, at the moment of its removal. So nothing live goes, whatever happens at the same time, and nobody waits for it:
//! files are renamed to the trash and deleted later.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_image::{Image, ImageUse, LayerUsers};
use berth_types::{Digest, Timestamp};
use tokio::sync::Notify;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// Removals within this time are followed by one collection.
const REMOVALS_TOGETHER: Duration = Duration::from_millis(250);

/// When images go by themselves. All zero or none: only what nothing leads to is collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionBudget {
    /// Between two collections; zero: there are none.
    pub interval: Duration,
    /// Most bytes of blobs and layers.
    pub size_bytes_max: Option<u64>,
    /// Fewest free bytes of the data root's file system.
    pub free_bytes_min: Option<u64>,
    /// Images that no container uses go when they were last loaded, pulled or tagged so long ago.
    pub unused_for: Option<Duration>,
}

/// Images that a create is about to use.
#[derive(Debug, Default)]
pub(crate) struct ImageHolds(Mutex<BTreeMap<Digest, usize>>);

/// An image that stays; dropped, it is not held any more.
#[derive(Debug)]
pub(crate) struct ImageHold<'h> {
    holds: &'h ImageHolds,
    id: Digest,
}

impl ImageHolds {
    pub(crate) fn hold(&self, id: Digest) -> ImageHold<'_> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(0) += 1;
        ImageHold { holds: self, id }
    }

    fn has(&self, id: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

impl Drop for ImageHold<'_> {
    fn drop(&mut self) {
        let mut held = self.holds.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.id);
            }
        }
    }
}

impl Engine {
    /// Collects again and again, until the daemon ends.
    pub(crate) fn start_collector(&self) {
        self.tell_layer_users();
        self.start_collector_of_removals();
        let interval = self.inner.options.collection.interval;
        if interval.is_zero() {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(error) = engine.heavy(|engine| engine.collect_now()).await {
                    tracing::warn!("the automatic collection failed, it is tried again: {error}");
                }
            }
        });
    }

    /// What removals through containerd's API leave unneeded: one collection for all of them within a moment.
    fn start_collector_of_removals(&self) {
        let due = Arc::new(Notify::new());
        let wake = Arc::clone(&due);
        self.inner.images.collect_later(Box::new(move || wake.notify_one()));
        // Those of an earlier process.
        self.inner.images.a_user_went();
        let engine = self.clone();
        tokio::spawn(async move {
            loop {
                due.notified().await;
                tokio::time::sleep(REMOVALS_TOGETHER).await;
                let collected = engine
                    .heavy(|engine| {
                        engine.inner.images.drop_replaced()?;
                        Ok(engine.inner.images.collect(&|id| engine.use_now(id))?)
                    })
                    .await;
                if let Err(error) = collected {
                    tracing::warn!("what was removed is not collected yet: {error}");
                }
            }
        });
    }

    fn collect_now(&self) -> Result<()> {
        let images = &self.inner.images;
        images.drop_replaced()?;
        images.collect(&|id| self.use_now(id))?;
        images.collect_proxied()?;
        let mut reclaimed: u64 = 0;
        let mut left = self.collectable()?;
        loop {
            // All their names go, which is what was decided. One that is used by now stays.
            let doomed = self.doomed(&mut left, reclaimed)?;
            if doomed.is_empty() {
                break;
            }
            let (removed, collected) = images.remove_unused(&doomed, &|id| self.use_now(id))?;
            reclaimed = reclaimed.saturating_add(collected.bytes);
            tracing::info!(images = removed.len(), bytes = collected.bytes, "unused images were collected");
            for removed in removed {
                if let Some(id) = removed.deleted.first().copied() {
                    self.tell_removed(&id, removed);
                }
            }
        }
        if reclaimed > 0 {
            self.emit("image", "prune", "", [("reclaimed".to_owned(), reclaimed.to_string())].into());
        }
        Ok(())
    }

    /// Images that may go, those that were wanted longest ago first. What came since the last collection stays: somebody is about to use it.
    fn collectable(&self) -> Result<Vec<Image>> {
        let budget = &self.inner.options.collection;
        if (budget.size_bytes_max, budget.free_bytes_min, budget.unused_for) == (None, None, None) {
            return Ok(Vec::new());
        }
        let is_settled = |image: &Image| image.wanted.is_none_or(|at| age(at) >= budget.interval);
        let mut images: Vec<Image> = self.inner.images.list()?;
        images.retain(|image| is_settled(image) && self.use_now(&image.id) == ImageUse::Unused);
        images.sort_by_key(|image| (image.wanted, image.id));
        Ok(images)
    }

    /// Takes out of `left` those that go next: all that are too old, and of the others as many as should free what is in excess. What they free
    /// together is only known afterwards, as other tenants may hold a part of it.
    fn doomed(&self, left: &mut Vec<Image>, reclaimed: u64) -> Result<Vec<Digest>> {
        let mut excess = self.excess(reclaimed)?;
        let mut uses: HashMap<Digest, u32> = HashMap::new();
        for image in self.inner.images.list()? {
            image.layers.iter().for_each(|layer| *uses.entry(layer.chain_id).or_default() += 1);
        }
        let mut doomed = Vec::new();
        left.retain(|image| {
            if excess == 0 && !self.is_too_old(image) {
                return true;
            }
            for layer in &image.layers {
                let users = uses.entry(layer.chain_id).or_default();
                *users = users.saturating_sub(1);
                if *users == 0 {
                    let blob = self.inner.images.content().size(&layer.blob).unwrap_or(0);
                    excess = excess.saturating_sub(layer.size_bytes.saturating_add(blob));
                }
            }
            doomed.push(image.id);
            false
        });
        Ok(doomed)
    }

    fn is_too_old(&self, image: &Image) -> bool {
        let limit = self.inner.options.collection.unused_for;
        limit.is_some_and(|limit| image.wanted.is_some_and(|at| age(at) > limit))
    }

    /// Bytes by which a budget is exceeded when those that were reclaimed just now are gone from the disk, too.
    fn excess(&self, reclaimed: u64) -> Result<u64> {
        let budget = &self.inner.options.collection;
        let over = match budget.size_bytes_max {
            Some(max) => self.inner.images.size_bytes().saturating_sub(max),
            None => 0,
        };
        let short = match budget.free_bytes_min {
            Some(min) => min.saturating_sub(free_bytes(&self.inner.paths.data)?.saturating_add(reclaimed)),
            None => 0,
        };
        Ok(over.max(short))
    }

    /// Who keeps old copies of layers that were damaged and made again. An engine that is gone has nobody who asks.
    fn tell_layer_users(&self) {
        let (of_images, of_snapshots) = (Arc::downgrade(&self.inner), Arc::downgrade(&self.inner));
        self.inner.images.know_layer_users(LayerUsers {
            of_image: Box::new(move |id| {
                of_images.upgrade().map(|inner| Self { inner }.alive_on(id)).unwrap_or_default()
            }),
            of_snapshot: Box::new(move |tenant, key| {
                Self { inner: of_snapshots.upgrade()? }.snapshot_user(tenant, key)
            }),
        });
    }

    /// Containers on an image that run, or with which something is being done: one of these may be starting.
    fn alive_on(&self, image: &Digest) -> Vec<String> {
        let is_alive = |container: &Container| {
            let is_busy = container.operation.try_lock().is_err();
            let inner = container.lock();
            inner.record.image_id == *image && (is_busy || !inner.is_at_rest())
        };
        let containers = self.inner.registry.all().into_iter();
        containers.filter(|container| is_alive(container)).map(|container| container.id.to_string()).collect()
    }

    /// Whether containers use an image, those being created included.
    pub(crate) fn use_now(&self, id: &Digest) -> ImageUse {
        if self.inner.image_holds.has(id) {
            return ImageUse::Stopped("being created".to_owned());
        }
        super::use_of(&self.image_uses(), id)
    }
}

fn age(at: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(Timestamp::now().0.saturating_sub(at.0)).unwrap_or(0))
}

fn free_bytes(path: &std::path::Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .map_err(|errno| EngineError::io("look at the file system of", path, &std::io::Error::from(errno)))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
