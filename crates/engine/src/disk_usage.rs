//! Disk use: who holds which bytes. Layers and blobs come from the ledgers; only what can change is walked (writable layers, volumes), several
//! trees at a time and without a lock, and stopped containers only once.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_content::Totals;
use berth_snapshot::TreeSize;

use crate::api::{DiskOwner, DiskUsage};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::images::tags;

/// Trees walked at once: enough to keep a disk busy, few enough for others to get on.
const WALKS_AT_ONCE: usize = 4;

impl Engine {
    /// # Errors
    /// When image records cannot be read.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        self.heavy(|engine| {
            let mut usage = DiskUsage::default();
            engine.image_usage(&mut usage)?;
            let containers = engine.inner.registry.all();
            // One that is removed in this moment has no size.
            let sizes = in_parallel(&containers, |container| engine.writable_size(container).unwrap_or_default());
            let ids = containers.iter().map(|container| container.id.to_string());
            usage.containers = ids.zip(sizes.iter().map(|size| size.usage.size_bytes)).collect();
            let volumes = engine.volume_usage();
            usage.owners = engine.owners(&sizes, &volumes)?;
            usage.volumes = volumes.into_iter().map(|(view, _)| view).collect();
            Ok(usage)
        })
        .await
    }

    fn image_usage(&self, usage: &mut DiskUsage) -> Result<()> {
        let images = self.inner.images.list()?;
        let mut users: HashMap<_, usize> = HashMap::new();
        let mut sizes = HashMap::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            *users.entry(layer.chain_id).or_default() += 1;
            sizes.insert(layer.chain_id, layer.size_bytes);
        }
        usage.layers_bytes = sizes.values().sum();
        for image in &images {
            let unique = image.layers.iter().filter(|layer| users.get(&layer.chain_id) == Some(&1));
            usage.images.push(((image.id.to_string(), tags(image)), unique.map(|layer| layer.size_bytes).sum()));
        }
        Ok(())
    }

    /// What a container wrote. A walk, unless nothing can have changed since the last one.
    ///
    /// # Errors
    /// When its layers or files cannot be read.
    pub(crate) fn writable_size(&self, container: &Container) -> Result<TreeSize> {
        let mark = {
            let inner = container.lock();
            if let Some(size) = inner.writable_size() {
                return Ok(size);
            }
            inner.writable_mark()
        };
        let size = self.inner.images.writable_tree(&self.rootfs_of(container)?)?;
        container.lock().note_writable_size(mark, size);
        Ok(size)
    }

    fn owners(
        &self,
        containers: &[TreeSize],
        volumes: &[(crate::api::VolumeView, TreeSize)],
    ) -> Result<Vec<DiskOwner>> {
        let store = self.inner.images.disk_use()?;
        let trees = |count: usize, bytes: &mut dyn Iterator<Item = u64>| Totals {
            count: count as u64,
            bytes: bytes.fold(0, u64::saturating_add),
        };
        let owner = |kind: &'static str, totals: Totals| DiskOwner { kind, count: totals.count, bytes: totals.bytes };
        Ok(vec![
            owner("image layers", store.layers),
            owner("packed blobs", store.blobs),
            owner("unfinished transfers", store.unfinished),
            owner("damaged blobs", store.damaged),
            owner("containers' files", trees(containers.len(), &mut containers.iter().map(|size| size.disk_bytes))),
            owner("containerd snapshots", store.snapshots),
            owner("volumes", trees(volumes.len(), &mut volumes.iter().map(|(_, size)| size.disk_bytes))),
            owner("logs and records", self.container_directories()),
            owner("events", files_in(&self.inner.paths.events())),
            // With the journal, and the space kept back for removals on a full disk.
            owner("metadata", files_in(&self.inner.paths.data)),
        ])
    }

    /// Logs, and the few small files beside them.
    fn container_directories(&self) -> Totals {
        let mut totals = Totals::default();
        for container in self.inner.registry.all() {
            let directory = files_in(&self.inner.paths.container(&container.id));
            totals.count += directory.count;
            totals.bytes = totals.bytes.saturating_add(directory.bytes);
        }
        totals
    }
}

/// Files right in a directory; what is gone, or cannot be looked at, holds nothing.
fn files_in(directory: &Path) -> Totals {
    let mut totals = Totals::default();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let one = file(&entry.path());
        totals.count += one.count;
        totals.bytes = totals.bytes.saturating_add(one.bytes);
    }
    totals
}

fn file(path: &Path) -> Totals {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Totals { count: 1, bytes: found.blocks().saturating_mul(512) },
        _ => Totals::default(),
    }
}

/// The results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            let result = work(item);
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        // The last one is this thread.
        for _ in 1..items.len().min(WALKS_AT_ONCE) {
            scope.spawn(worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::in_parallel;

    #[test]
    fn results_come_in_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(in_parallel(&Vec::<u8>::new(), |item| *item).is_empty());
    }
}
