//! The image store: what images there are, what they are made of, and which blobs and layers nobody needs any more.
//!
//! ```text
//! <data root>/content/              blobs: configs, manifests, packed layers (crate content)
//! <data root>/snapshots/overlay/    layer directories and writable layers (crate snapshot)
//! metadata, tables Images and Tags  which of them belong together
//! ```
//!
//! Order that makes a crash harmless: blobs and layers first, then the record in one transaction; removal the other way round. What has no
//! record is rubbish and is swept. Lock order: `changing` before anything in the other crates; `pins` alone and shortly.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use berth_content::ContentStore;
use berth_metadata::{Durability, Metadata, Table, Write};
use berth_snapshot::{DevmapperDriver, Driver, SnapshotStore};
use berth_snapshot_proxy::{Proxy, ProxySettings};
use berth_types::{ChainId, Digest, Reference};

use crate::compression::Expansion;
use crate::document::{self, CONFIG_BYTES_MAX, ConfigDocument, MANIFEST_BYTES_MAX};
use crate::housekeeping::Housekeeping;
use crate::record::ImageRecord;
use crate::replaced::LayerUsers;
use crate::tenant::gc::Needed;
use crate::{Image, ImageError, Layer, Result};

/// All images of a data root.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) content: Arc<ContentStore>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    _housekeeping: Housekeeping,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) expansion: Expansion,
    /// Held while records, blobs and layers are changed together.
    changing: Mutex<()>,
    /// Layers and blobs that a load under way counts on although no record of its own names them yet.
    pins: Mutex<HashMap<Digest, usize>>,
    /// Active snapshots (tenant/key) into which the diff service unpacked exactly the layers of this chain.
    applied: Mutex<HashMap<String, ChainId>>,
    /// External snapshotters, for clients of the containerd API that name them.
    proxies: Vec<Proxy>,
    /// One for each of `proxies`, held while its snapshots and what refers to them change together; before `changing`.
    proxied: Vec<Mutex<()>>,
    collections: Collections,
    /// Wakes who collects.
    pub(crate) collector: OnceLock<Hook<dyn Fn() + Send + Sync>>,
    /// Hears of snapshots that collections removed.
    teller: OnceLock<Hook<dyn Fn(CollectedSnapshot) + Send + Sync>>,
    pub(crate) users: OnceLock<LayerUsers>,
    /// The collector was woken and has not been here.
    is_collection_due: AtomicBool,
    /// What documents name, of those that were looked at.
    children: Mutex<HashMap<Digest, Arc<[Digest]>>>,
}

/// How files are kept.
#[derive(Debug, Clone, Default)]
pub struct StorageOptions {
    /// Name of the snapshotter; nothing: the best that works.
    pub snapshotter: Option<String>,
    /// External ones that can be named.
    pub proxies: Vec<ProxySettings>,
    /// Of the snapshotter `devmapper`.
    pub thin_pool: Option<ThinPool>,
}

/// A device-mapper thin pool of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinPool {
    /// Name of the active pool device.
    pub name: String,
    /// Of each layer and container.
    pub size_bytes: u64,
}

/// What collection has done since the store was opened.
#[derive(Debug, Default)]
struct Collections {
    runs: AtomicU64,
    layers: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionCounts {
    pub runs: u64,
    pub layers: u64,
    pub blobs: u64,
    pub bytes: u64,
}

/// Manifests whose references are remembered.
const CHILDREN_MAX: usize = 4096;

/// Somebody who is called; there is nothing to show of it.
pub(crate) struct Hook<F: ?Sized>(pub(crate) Box<F>);

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// A snapshot of a tenant that nothing led to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedSnapshot {
    pub tenant: String,
    pub snapshotter: String,
    pub key: String,
}

/// What removal freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub bytes: u64,
}

impl ImageStore {
    /// Opens content, snapshots and image records below the data root; sweeps what a crash left half done.
    ///
    /// # Errors
    /// When the directories cannot be made, or a record is damaged.
    pub fn open(data_root: &Path, metadata: Arc<Metadata>) -> Result<Self> {
        let options = StorageOptions { snapshotter: Some("overlay".to_owned()), ..StorageOptions::default() };
        Self::open_with(data_root, metadata, options)
    }

    /// The same with a snapshotter by name, or the best that works here. Each has a directory of its own; what another one unpacked is unpacked
    /// again from the blobs when it is needed.
    ///
    /// # Errors
    /// As [`Self::open`], and as [`berth_snapshot::choose`]; `Unavailable` when an external snapshotter is to be used and does not answer.
    pub fn open_with(data_root: &Path, metadata: Arc<Metadata>, options: StorageOptions) -> Result<Self> {
        let place = data_root.join("snapshots");
        let proxies = options.proxies.into_iter().map(Proxy::new).collect::<std::result::Result<Vec<Proxy>, _>>()?;
        let driver = driver(&place, options.snapshotter.as_deref(), &proxies, options.thin_pool.as_ref())?;
        let root = place.join(driver.name());
        let snapshots = Arc::new(SnapshotStore::open_with(&root, driver)?);
        snapshots.sweep()?;
        let content = Arc::new(ContentStore::open(&data_root.join("content"))?);
        let store = Self {
            _housekeeping: Housekeeping::start(Arc::clone(&snapshots), Arc::clone(&content))?,
            content,
            snapshots,
            metadata,
            expansion: Expansion::default(),
            changing: Mutex::new(()),
            pins: Mutex::new(HashMap::new()),
            collections: Collections::default(),
            collector: OnceLock::new(),
            teller: OnceLock::new(),
            users: OnceLock::new(),
            is_collection_due: AtomicBool::new(false),
            children: Mutex::new(HashMap::new()),
            applied: Mutex::new(HashMap::new()),
            proxied: proxies.iter().map(|_| Mutex::new(())).collect(),
            proxies,
        };
        store.collect_unreferenced(&store.lock())?;
        store.content.sweep_taken_over()?;
        Ok(store)
    }

    /// Where blobs are, also those on their way from a registry.
    pub fn content(&self) -> &Arc<ContentStore> {
        &self.content
    }

    /// Name of the snapshotter in use.
    pub fn snapshotter(&self) -> &str {
        self.snapshots.driver().name()
    }

    /// Whether labels of a snapshot map the owners of its layers (`remap-ids`).
    pub fn maps_ids(&self) -> bool {
        self.snapshots.driver().maps_ids()
    }

    /// External snapshotters, reachable or not.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Other limits for content that grows when it is unpacked.
    pub fn set_expansion(&mut self, expansion: Expansion) {
        self.expansion = expansion;
    }

    /// Every image, newest last tagged first is up to the caller: the order is that of the ids.
    ///
    /// # Errors
    /// When a record or a config cannot be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut names = self.references_by_id()?;
        let mut images = Vec::new();
        for (id, record) in self.records()? {
            if !record.is_hidden {
                images.push(self.image(id, record, names.remove(&id).unwrap_or_default())?);
            }
        }
        Ok(images)
    }

    /// By reference, full id, or unambiguous id prefix (with or without `sha256:`).
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` when several ids begin with the prefix.
    pub fn get(&self, name_or_id: &str) -> Result<Image> {
        let (id, record) = self.find(name_or_id)?;
        if record.is_hidden {
            return Err(not_found(name_or_id));
        }
        let references = self.references_by_id()?.remove(&id).unwrap_or_default();
        self.image(id, record, references)
    }

    /// The image with exactly this id, also when it was removed by force while a container uses it: what a start needs.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_by_id(&self, id: &Digest) -> Result<Image> {
        let record = self.record(id)?.ok_or_else(|| not_found(&id.to_string()))?;
        let references = self.references_by_id()?.remove(id).unwrap_or_default();
        self.image(*id, record, references)
    }

    /// Whether there is an image of exactly this id.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn has(&self, id: &Digest) -> Result<bool> {
        Ok(self.record(id)?.is_some())
    }

    /// Whether the image was removed by force and is kept for a container.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn is_hidden(&self, id: &Digest) -> Result<bool> {
        Ok(self.record(id)?.is_some_and(|record| record.is_hidden))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing for a snapshotter that is none of the external ones.
    pub(crate) fn lock_proxied(&self, snapshotter: &str) -> Option<MutexGuard<'_, ()>> {
        let at = self.proxies.iter().position(|proxy| proxy.name() == snapshotter)?;
        Some(self.proxied[at].lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn record(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let key = id.to_string();
        self.metadata.get(Table::Images, &key)?.map(|bytes| ImageRecord::parse(&key, &bytes)).transpose()
    }

    pub(crate) fn records(&self) -> Result<Vec<(Digest, ImageRecord)>> {
        let mut records = Vec::new();
        for (key, bytes) in self.metadata.list(Table::Images)? {
            let record = ImageRecord::parse(&key, &bytes)?;
            records.push((parse_id(&key)?, record));
        }
        Ok(records)
    }

    pub(crate) fn references_by_id(&self) -> Result<HashMap<Digest, Vec<Reference>>> {
        let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for (reference, id) in self.tags()? {
            names.entry(id).or_default().push(reference);
        }
        Ok(names)
    }

    fn tags(&self) -> Result<Vec<(Reference, Digest)>> {
        let mut tags = Vec::new();
        for (key, value) in self.metadata.list(Table::Tags)? {
            let reference = key.parse().map_err(|_| damaged_record(&key))?;
            tags.push((reference, parse_id(&String::from_utf8_lossy(&value))?));
        }
        Ok(tags)
    }

    pub(crate) fn tag_target(&self, reference: &Reference) -> Result<Option<Digest>> {
        let value = self.metadata.get(Table::Tags, &reference.to_string())?;
        value.map(|value| parse_id(&String::from_utf8_lossy(&value))).transpose()
    }

    /// A reference wins over an id prefix of the same spelling, as with Docker.
    pub(crate) fn find(&self, name_or_id: &str) -> Result<(Digest, ImageRecord)> {
        if let Some(id) = as_full_id(name_or_id) {
            return Ok((id, self.record(&id)?.ok_or_else(|| not_found(name_or_id))?));
        }
        if let Ok(reference) = name_or_id.parse::<Reference>()
            && let Some(id) = self.find_reference(&reference)?
        {
            return Ok((id, self.record(&id)?.ok_or_else(|| not_found(name_or_id))?));
        }
        self.find_prefix(name_or_id)
    }

    fn find_reference(&self, reference: &Reference) -> Result<Option<Digest>> {
        let Some(digest) = reference.digest() else {
            return self.tag_target(&reference.clone().with_default_tag());
        };
        // By manifest digest: one of the repository's images must have that manifest. (With the containerd image store the id is one, too.)
        for (tag, id) in self.tags()? {
            if tag.repository() == reference.repository()
                && (id == *digest
                    || tag.digest() == Some(digest)
                    || self.record(&id)?.is_some_and(|record| record.manifest == *digest))
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn find_prefix(&self, text: &str) -> Result<(Digest, ImageRecord)> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !is_hex {
            return Err(not_found(text));
        }
        let mut matching =
            self.records()?.into_iter().filter(|(id, record)| !record.is_hidden && id.hex().starts_with(prefix));
        let first = matching.next().ok_or_else(|| not_found(text))?;
        match matching.next() {
            None => Ok(first),
            Some((second, _)) => Err(ImageError::AmbiguousId {
                prefix: prefix.to_owned(),
                first: first.0.short(),
                second: second.short(),
            }),
        }
    }

    fn image(&self, id: Digest, record: ImageRecord, references: Vec<Reference>) -> Result<Image> {
        let bytes = self.content.read(&id, CONFIG_BYTES_MAX)?;
        let config = ConfigDocument::parse(&bytes, &format!("config {}", id.short()))?;
        let chain = record.chain_ids();
        let layers = record.layers.iter().zip(&chain).map(|(layer, chain_id)| Layer {
            diff_id: layer.diff_id,
            chain_id: *chain_id,
            blob: layer.blob,
            directory: self.snapshots.lower(chain_id),
            size_bytes: layer.size_bytes,
        });
        Ok(Image {
            id,
            manifest: record.manifest,
            references,
            config_json: config.json,
            config: config.typed,
            diff_ids: config.diff_ids,
            size_bytes: record.layers.iter().map(|layer| layer.size_bytes).sum(),
            layers: layers.collect(),
            last_tagged: record.last_tagged,
            wanted: record.last_tagged.max(record.admitted),
        })
    }

    /// Bytes of all blobs and unpacked layers, from the ledgers.
    pub fn size_bytes(&self) -> u64 {
        let layers = self.snapshots.layer_sizes();
        layers.iter().fold(self.content.totals().bytes, |sum, (_, size)| sum.saturating_add(size.bytes()))
    }

    pub(crate) fn write(&self, writes: Vec<Write>) -> Result<()> {
        Ok(self.metadata.write(writes, Durability::Immediate)?)
    }

    /// Keeps a layer or blob from being collected until the pin is dropped.
    pub(crate) fn pin(&self, digest: Digest) -> Pin<'_> {
        *self.pins.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_insert(0) += 1;
        Pin { store: self, digest }
    }

    /// `None`: whatever it is, it is not the layers of a chain alone.
    pub(crate) fn note_applied(&self, tenant: &str, key: &str, chain_id: Option<ChainId>) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        match chain_id {
            Some(chain_id) => drop(applied.insert(format!("{tenant}/{key}"), chain_id)),
            None => drop(applied.remove(&format!("{tenant}/{key}"))),
        }
    }

    /// Said once: a snapshot of the same key made later is another one.
    pub(crate) fn applied(&self, tenant: &str, key: &str) -> Option<ChainId> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("{tenant}/{key}"))
    }

    fn pinned(&self) -> HashSet<Digest> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Removes layers and blobs that no record names and no load under way counts on.
    pub(crate) fn collect_unreferenced(&self, _changing: &MutexGuard<'_, ()>) -> Result<Collected> {
        let tenants = self.collect_tenants(true)?;
        self.is_collection_due.store(false, Ordering::Relaxed);
        let unreferenced = self.not_in(&tenants)?;
        self.snapshots.sweep_homes(&tenants.homes)?;
        let mut bytes = 0;
        for chain_id in &unreferenced.layers {
            bytes += self.snapshots.layer_size(chain_id).unwrap_or(0);
            self.snapshots.remove_layer(chain_id)?;
        }
        for blob in &unreferenced.blobs {
            bytes += self.content.remove(blob)?;
        }
        // Large blobs are in the trash.
        self.snapshots.trash().wake();
        let add = |counter: &AtomicU64, count: u64| {
            counter.fetch_add(count, Ordering::Relaxed);
        };
        add(&self.collections.runs, 1);
        add(&self.collections.layers, unreferenced.layers.len() as u64);
        add(&self.collections.blobs, unreferenced.blobs.len() as u64);
        add(&self.collections.bytes, bytes);
        Ok(Collected { bytes })
    }

    /// From now on what a removal leaves unneeded is collected a moment later, by whoever `collector` wakes: not by each removal itself, which
    /// would look at every record of the store. The first one stays.
    pub fn collect_later(&self, collector: Box<dyn Fn() + Send + Sync>) {
        drop(self.collector.set(Hook(collector)));
    }

    /// Tells of each snapshot that a collection removes, after it is gone. It must not block. The first one stays.
    pub fn tell_collected(&self, told: Box<dyn Fn(CollectedSnapshot) + Send + Sync>) {
        drop(self.teller.set(Hook(told)));
    }

    pub(crate) fn collected(&self, snapshot: CollectedSnapshot) {
        if let Some(Hook(tell)) = self.teller.get() {
            tell(snapshot);
        }
    }

    /// Something lost a reference.
    pub(crate) fn collection_is_due(&self, changing: &MutexGuard<'_, ()>) -> Result<()> {
        match self.collector.get() {
            Some(Hook(wake)) => {
                self.is_collection_due.store(true, Ordering::Relaxed);
                wake();
            }
            None => drop(self.collect_unreferenced(changing)?),
        }
        Ok(())
    }

    pub(crate) fn is_collection_due(&self) -> bool {
        self.is_collection_due.load(Ordering::Relaxed)
    }

    /// What a manifest or an index names, nothing for anything else; read once, for content never changes. `None`: it cannot be read.
    pub(crate) fn children(&self, digest: &Digest) -> Option<Arc<[Digest]>> {
        let known = || self.children.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(children) = known().get(digest) {
            return Some(Arc::clone(children));
        }
        let children: Arc<[Digest]> = self.read_children(digest)?.into();
        let mut known = known();
        if known.len() >= CHILDREN_MAX {
            known.clear();
        }
        known.insert(*digest, Arc::clone(&children));
        Some(children)
    }

    fn read_children(&self, digest: &Digest) -> Option<Vec<Digest>> {
        let mut first = [0];
        let is_large = self.content.size(digest).ok()? > MANIFEST_BYTES_MAX;
        // A layer is not read to its end for what its first byte tells.
        if is_large || self.content.read_at(digest, 0, &mut first).ok()? == 0 || first != *b"{" {
            return Some(Vec::new());
        }
        self.content.read(digest, MANIFEST_BYTES_MAX).ok().map(|bytes| document::children(&bytes))
    }

    /// How often was collected since the store was opened, and what went.
    pub fn collections(&self) -> CollectionCounts {
        let Collections { runs, layers, blobs, bytes } = &self.collections;
        let [runs, layers, blobs, bytes] = [runs, layers, blobs, bytes].map(|n| n.load(Ordering::Relaxed));
        CollectionCounts { runs, layers, blobs, bytes }
    }

    /// What the next collection would remove.
    pub(crate) fn unreferenced(&self, _changing: &MutexGuard<'_, ()>) -> Result<Unreferenced> {
        self.not_in(&self.collect_tenants(false)?)
    }

    fn not_in(&self, tenants: &Needed) -> Result<Unreferenced> {
        let mut needed = self.pinned();
        for (id, record) in self.records()? {
            needed.extend(record.blobs(id));
            needed.extend(record.chain_ids());
        }
        needed.extend(&tenants.blobs);
        needed.extend(&tenants.layers);
        let is_rest = |digest: &Digest| !needed.contains(digest);
        Ok(Unreferenced {
            layers: self.snapshots.layers()?.into_iter().filter(is_rest).collect(),
            blobs: self.content.list()?.into_iter().filter(is_rest).collect(),
            homes: self.snapshots.homes()?.into_iter().filter(|home| !tenants.homes.contains(home)).collect(),
        })
    }
}

/// The driver of that name, tried out: an external snapshotter, or one of our own.
fn driver(
    place: &Path,
    asked: Option<&str>,
    proxies: &[Proxy],
    thin_pool: Option<&ThinPool>,
) -> Result<Box<dyn Driver>> {
    if asked == Some("devmapper") {
        let pool = thin_pool.ok_or_else(|| ImageError::Invalid {
            what: "snapshotter",
            why: "devmapper needs a thin pool: --devmapper-pool NAME".to_owned(),
        })?;
        let numbers = place.join("devmapper");
        let driver = Box::new(DevmapperDriver::open(&pool.name, &numbers, pool.size_bytes)?);
        berth_snapshot::try_out(place, driver.as_ref())?;
        return Ok(driver);
    }
    let Some(proxy) = proxies.iter().find(|proxy| Some(proxy.name()) == asked) else {
        return Ok(berth_snapshot::choose(place, asked)?);
    };
    proxy.probe()?;
    let driver = Box::new(proxy.driver());
    berth_snapshot::try_out(place, driver.as_ref())?;
    Ok(driver)
}

/// What belongs to nobody.
#[derive(Debug)]
pub(crate) struct Unreferenced {
    pub(crate) layers: Vec<ChainId>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) homes: Vec<u64>,
}

/// See [`ImageStore::pin`].
#[derive(Debug)]
pub(crate) struct Pin<'s> {
    store: &'s ImageStore,
    digest: Digest,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.store.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

pub(crate) fn not_found(name: &str) -> ImageError {
    ImageError::NotFound { name: name.chars().take(300).collect() }
}

fn as_full_id(text: &str) -> Option<Digest> {
    Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text)).ok()
}

fn parse_id(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| damaged_record(text))
}

fn damaged_record(key: &str) -> ImageError {
    let source = serde::de::Error::custom("its key or value is no image id or reference");
    ImageError::Record { id: key.chars().take(100).collect(), source }
}
