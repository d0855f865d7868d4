//! Snapshots in containerd's terms, over the same store that keeps the layers of images: a [`Snapshotter`] makes, commits and removes snapshots by
//! key, and tells what to mount.
//!
//! A story: *prepare* makes an active snapshot, a writable tree on top of a committed *parent* (or of nothing); *mounts* tells how to mount it;
//! *commit* freezes it under a *name*, which can then be a parent itself; *view* is a read-only look at a committed one; *remove* deletes one
//! that no other is based on.
//!
//! What this is not: keeping records. Whoever makes a [`LocalSnapshotter`] brings a [`Records`] that is atomic and durable, and a prefix that
//! keeps the keys of tenants apart. A name that is a chain id, committed by somebody who vouches for it, becomes a layer of the store, which
//! images and all tenants share; every other snapshot lives in a numbered home of its own.
//!
//! Crashes: a home is made before the record that names it and deleted after it; a home without a record is rubbish
//! ([`SnapshotStore::sweep_homes`]). A layer is settled before a record names it: otherwise a crash of the host could keep the record and lose the layer.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use berth_rootfs::OverlayRootfs;
use berth_types::label::{self, Labels};
use berth_types::{ChainId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::children::Children;
use crate::mount::{Mount, mounts};
use crate::remap::Remap;
use crate::{Result, SnapshotError, SnapshotStore};

const FORMAT: u32 = 1;
/// Longest key or name.
const KEY_BYTES_MAX: usize = 2048;
/// More parents than any overlay mount takes.
const PARENTS_MAX: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    View,
    Active,
    Committed,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Key of an active one or a view, name of a committed one.
    pub name: String,
    pub parent: Option<String>,
    pub kind: Kind,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub labels: Labels,
}

/// Of a snapshot alone, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of regular files.
    pub size_bytes: u64,
    pub inodes: u64,
}

/// The contract; `crate::testsuite` is its runnable form.
pub trait Snapshotter: Debug + Send + Sync {
    /// # Errors
    /// `NotFound`.
    fn stat(&self, key: &str) -> Result<Info>;

    /// Changes labels by field paths; see [`label::updated`].
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for other fields.
    fn update(&self, key: &str, labels: &Labels, fields: &[String]) -> Result<Info>;

    /// # Errors
    /// `NotFound`.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// Of an active snapshot or a view.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// # Errors
    /// `AlreadyExists`; `NotFound` for the parent; `InvalidArgument` when the parent is not committed.
    fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>>;

    /// # Errors
    /// As [`Self::prepare`].
    fn view(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>>;

    /// The active snapshot is known as `name` from then on. Its labels are those given here.
    ///
    /// # Errors
    /// `AlreadyExists` for the name, `NotFound` for the key, `FailedPrecondition` when it is not active.
    fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<()>;

    /// # Errors
    /// `NotFound`; `FailedPrecondition` while others are based on it.
    fn remove(&self, key: &str) -> Result<()>;

    /// All, sorted by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    fn walk(&self) -> Result<Vec<Info>>;

    /// Gives back at once what removed snapshots still hold.
    ///
    /// # Errors
    /// What the kernel says.
    fn cleanup(&self) -> Result<()>;
}

/// A write to [`Records`]: a value to put, or `None` to delete.
pub type RecordWrite = (String, Option<Vec<u8>>);

/// Where records live: atomic and durable when `write` returns.
pub trait Records: Debug + Send + Sync {
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError>;

    /// All whose key begins so, sorted by key.
    ///
    /// # Errors
    /// When they cannot be read.
    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError>;

    /// All or nothing.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError>;
}

/// What the keeper of the records says, with its class.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the snapshot records")]
pub struct RecordsError {
    pub class: berth_types::ErrorClass,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where a snapshot's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A layer of the store, shared with images and other tenants.
    Layer(ChainId),
    /// `snapshots/<n>`, of this snapshot alone.
    Own(u64),
}

/// Format 1 of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRecord {
    format: u32,
    pub kind: Kind,
    pub parent: Option<String>,
    pub place: Place,
    created_ns: i64,
    updated_ns: i64,
    labels: Labels,
    size_bytes: u64,
    inodes: u64,
}

impl SnapshotRecord {
    /// What it held when it was committed; nothing while it can change.
    pub fn committed_bytes(&self) -> Option<u64> {
        (self.kind == Kind::Committed).then_some(self.size_bytes)
    }

    /// # Errors
    /// `DataLoss` when it is damaged.
    pub fn parse(key: &str, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|source| SnapshotError::Record { path: PathBuf::from(key), source })
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    fn info(&self, name: &str) -> Info {
        Info {
            name: name.to_owned(),
            parent: self.parent.clone(),
            kind: self.kind,
            created: Timestamp(self.created_ns),
            updated: Timestamp(self.updated_ns),
            labels: self.labels.clone(),
        }
    }
}

/// The snapshots of one tenant in a local store.
#[derive(Debug, Clone)]
pub struct LocalSnapshotter {
    store: Arc<SnapshotStore>,
    records: Arc<dyn Records>,
    prefix: String,
}

impl LocalSnapshotter {
    pub fn new(store: Arc<SnapshotStore>, records: Arc<dyn Records>, prefix: &str) -> Self {
        Self { store, records, prefix: prefix.to_owned() }
    }

    /// What to mount for a snapshot, for our own runtime.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    pub fn rootfs(&self, key: &str) -> Result<OverlayRootfs> {
        let record = self.record(key)?;
        if record.kind == Kind::Committed {
            return Err(SnapshotError::Committed { key: shown(key) });
        }
        self.rootfs_of(&record)
    }

    /// The directory an active snapshot's own files are in; on it a layer can be unpacked in place of mounting it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is not active.
    pub fn writable_dir(&self, key: &str) -> Result<PathBuf> {
        let rootfs = self.rootfs(key)?;
        rootfs.upper.ok_or_else(|| SnapshotError::NotActive { key: shown(key) })
    }

    /// Layer directories below a snapshot, top to bottom.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn lowers(&self, key: &str) -> Result<Vec<PathBuf>> {
        self.lowers_of(self.record(key)?.parent.as_deref())
    }

    /// As [`Snapshotter::commit`], by somebody who unpacked the layers of this chain into it and its parents and verified them: the files become
    /// a layer of the store.
    ///
    /// # Errors
    /// As [`Snapshotter::commit`].
    pub fn commit_layer(&self, name: &str, key: &str, labels: &Labels, chain_id: &ChainId) -> Result<()> {
        self.commit_as(name, key, labels, Some(chain_id))
    }

    /// Makes a layer of the store known as a committed snapshot, without unpacking anything.
    ///
    /// # Errors
    /// `NotFound` when there is no such layer, `AlreadyExists` for the name.
    pub fn adopt_layer(&self, name: &str, parent: Option<&str>, labels: &Labels, chain_id: &ChainId) -> Result<()> {
        let mut children = self.store.lock_snapshots();
        self.check_new(name)?;
        self.check_parent(parent)?;
        label::check(labels)?;
        let size_bytes =
            self.store.layer_size(chain_id).ok_or_else(|| SnapshotError::Unknown { key: chain_id.to_string() })?;
        self.store.settle_layer(chain_id)?;
        let mut record = new_record(Kind::Committed, parent, Place::Layer(*chain_id), labels);
        record.size_bytes = size_bytes;
        self.put(&mut children, name, &record)
    }

    /// # Errors
    /// `NotFound`.
    pub fn place(&self, key: &str) -> Result<Place> {
        Ok(self.record(key)?.place)
    }

    /// Every record of the tenant, by key.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn walk_all(&self) -> Result<Vec<(String, SnapshotRecord)>> {
        let records = self.records.list(&self.prefix)?;
        let parsed = |(full, bytes): (String, Vec<u8>)| {
            Ok((full[self.prefix.len()..].to_owned(), SnapshotRecord::parse(&full, &bytes)?))
        };
        records.into_iter().map(parsed).collect()
    }

    fn record(&self, key: &str) -> Result<SnapshotRecord> {
        self.find(key)?.ok_or_else(|| SnapshotError::Unknown { key: shown(key) })
    }

    fn find(&self, key: &str) -> Result<Option<SnapshotRecord>> {
        let full = self.full(key);
        self.records.get(&full)?.map(|bytes| SnapshotRecord::parse(&full, &bytes)).transpose()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn put(&self, children: &mut Children, key: &str, record: &SnapshotRecord) -> Result<()> {
        Ok(self.records.write(vec![self.written(children, key, record)?])?)
    }

    fn written(&self, children: &mut Children, key: &str, record: &SnapshotRecord) -> Result<RecordWrite> {
        if let Some(parent) = &record.parent {
            children.add(&self.prefix, parent, key);
        }
        let full = self.full(key);
        let json = serde_json::to_vec(record)
            .map_err(|source| SnapshotError::Record { path: PathBuf::from(&full), source })?;
        Ok((full, Some(json)))
    }

    fn check_new(&self, key: &str) -> Result<()> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
            return Err(SnapshotError::Key { key: shown(key) });
        }
        if self.find(key)?.is_some() {
            return Err(SnapshotError::Exists { key: shown(key) });
        }
        Ok(())
    }

    fn check_parent(&self, parent: Option<&str>) -> Result<()> {
        match parent.map(|parent| self.record(parent)).transpose()? {
            Some(record) if record.kind != Kind::Committed => {
                Err(SnapshotError::Parent { key: shown(parent.unwrap_or_default()) })
            }
            _ => Ok(()),
        }
    }

    fn lowers_of(&self, parent: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut lowers = Vec::new();
        let mut next = parent.map(str::to_owned);
        while let Some(key) = next {
            if lowers.len() == PARENTS_MAX {
                return Err(SnapshotError::TooManyParents { key: shown(&key), parents: PARENTS_MAX });
            }
            let record = self.record(&key)?;
            lowers.push(match record.place {
                Place::Layer(chain_id) => self.store.lower(&chain_id),
                Place::Own(number) => self.store.home_lower(number),
            });
            next = record.parent;
        }
        Ok(lowers)
    }

    fn rootfs_of(&self, record: &SnapshotRecord) -> Result<OverlayRootfs> {
        let Place::Own(number) = record.place else {
            return Err(SnapshotError::NotActive { key: String::new() });
        };
        let lowers = self.lowers_of(record.parent.as_deref())?;
        match record.kind {
            Kind::Active => self.store.home_rootfs(number, lowers),
            Kind::View if lowers.is_empty() => Ok(OverlayRootfs {
                lowers: vec![self.store.home_files(number).to_path_buf()],
                ..OverlayRootfs::default()
            }),
            Kind::View | Kind::Committed => {
                Ok(OverlayRootfs { lowers: self.store.driver().visible(lowers), ..OverlayRootfs::default() })
            }
        }
    }

    fn make(&self, kind: Kind, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>> {
        let mut children = self.store.lock_snapshots();
        let parent = parent.filter(|parent| !parent.is_empty());
        self.check_new(key)?;
        self.check_parent(parent)?;
        label::check(labels)?;
        // A view is looked at as it is.
        let remap = if kind == Kind::Active { Remap::of(labels)? } else { None };
        if remap.is_some() && !self.store.driver().maps_ids() {
            return Err(SnapshotError::CannotMap { driver: self.store.driver().name().to_owned() });
        }
        let lowers = self.lowers_of(parent)?;
        let number = self.store.make_home(if kind == Kind::Active { &lowers } else { &[] })?;
        let record = new_record(kind, parent, Place::Own(number), labels);
        let put = self.put(&mut children, key, &record);
        let made = put.and_then(|()| self.rootfs_of(&record)).and_then(|rootfs| {
            if let (Some(remap), Some(upper)) = (&remap, &rootfs.upper) {
                remap.give(upper)?;
            }
            mounts_of(&record, &rootfs)
        });
        if made.is_err() {
            // The first error is the one that matters; what stays has no record and is swept.
            self.records.write(vec![(self.full(key), None)]).ok();
            self.store.drop_home(number).ok();
        }
        made
    }

    fn active(&self, key: &str) -> Result<(SnapshotRecord, u64)> {
        let record = self.record(key)?;
        match (record.kind, record.place) {
            (Kind::Active, Place::Own(number)) => Ok((record, number)),
            _ => Err(SnapshotError::NotActive { key: shown(key) }),
        }
    }

    fn commit_as(&self, name: &str, key: &str, labels: &Labels, chain_id: Option<&ChainId>) -> Result<()> {
        label::check(labels)?;
        // Walked and flushed before the lock is taken, on which every other snapshot waits.
        let number = self.active(key)?.1;
        let usage = self.store.home_usage(number)?;
        self.store.flush_home(number)?;
        let mut children = self.store.lock_snapshots();
        self.check_new(name)?;
        let (active, now) = self.active(key)?;
        if now != number {
            return Err(SnapshotError::NotActive { key: shown(key) });
        }
        let place = match chain_id {
            Some(chain_id) => {
                self.store.home_into_layer(number, chain_id, usage)?;
                self.store.settle_layer(chain_id)?;
                Place::Layer(*chain_id)
            }
            None => {
                self.store.freeze_home(number)?;
                active.place
            }
        };
        let mut record = new_record(Kind::Committed, active.parent.as_deref(), place, labels);
        (record.size_bytes, record.inodes) = (usage.size_bytes, usage.inodes);
        let writes = vec![(self.full(key), None), self.written(&mut children, name, &record)?];
        self.records.write(writes)?;
        Ok(())
    }
}

impl Snapshotter for LocalSnapshotter {
    fn stat(&self, key: &str) -> Result<Info> {
        Ok(self.record(key)?.info(key))
    }

    fn update(&self, key: &str, labels: &Labels, fields: &[String]) -> Result<Info> {
        let mut children = self.store.lock_snapshots();
        let mut record = self.record(key)?;
        record.labels = label::updated(record.labels, labels, fields)?;
        record.updated_ns = Timestamp::now().0;
        self.put(&mut children, key, &record)?;
        Ok(record.info(key))
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.record(key)?;
        match (record.kind, record.place) {
            (Kind::Active, Place::Own(number)) => self.store.home_usage(number),
            _ => Ok(Usage { size_bytes: record.size_bytes, inodes: record.inodes }),
        }
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let record = self.record(key)?;
        mounts_of(&record, &self.rootfs(key)?)
    }

    fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>> {
        self.make(Kind::Active, key, parent, labels)
    }

    fn view(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>> {
        self.make(Kind::View, key, parent, labels)
    }

    fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<()> {
        self.commit_as(name, key, labels, None)
    }

    fn remove(&self, key: &str) -> Result<()> {
        let mut children = self.store.lock_snapshots();
        let record = self.record(key)?;
        let all = || Ok(self.walk()?.into_iter().filter_map(|info| Some((info.name, info.parent?))).collect());
        let is_child = |child: &str| Ok(self.find(child)?.is_some_and(|found| found.parent.as_deref() == Some(key)));
        if let Some(child) = children.find(&self.prefix, key, all, is_child)? {
            return Err(SnapshotError::HasChild { key: shown(key), child: shown(&child) });
        }
        self.records.write(vec![(self.full(key), None)])?;
        match record.place {
            Place::Own(number) => self.store.drop_home(number),
            // Others may need it; who collects the layers knows.
            Place::Layer(_) => Ok(()),
        }
    }

    fn walk(&self) -> Result<Vec<Info>> {
        Ok(self.walk_all()?.iter().map(|(key, record)| record.info(key)).collect())
    }

    fn cleanup(&self) -> Result<()> {
        let _guard = self.store.lock_snapshots();
        let mut known = BTreeSet::new();
        for (full, bytes) in self.records.list("")? {
            if let Place::Own(number) = SnapshotRecord::parse(&full, &bytes)?.place {
                known.insert(number);
            }
        }
        self.store.sweep_homes(&known)?;
        self.store.trash().empty()
    }
}

/// With what the labels of an active snapshot say of its owners.
fn mounts_of(record: &SnapshotRecord, rootfs: &OverlayRootfs) -> Result<Vec<Mount>> {
    let mut mounts = mounts(rootfs)?;
    if record.kind == Kind::Active
        && let Some(remap) = Remap::of(&record.labels)?
    {
        remap.add_to(&mut mounts);
    }
    Ok(mounts)
}

fn new_record(kind: Kind, parent: Option<&str>, place: Place, labels: &Labels) -> SnapshotRecord {
    let now = Timestamp::now().0;
    SnapshotRecord {
        format: FORMAT,
        kind,
        parent: parent.map(str::to_owned),
        place,
        created_ns: now,
        updated_ns: now,
        labels: labels.clone(),
        size_bytes: 0,
        inodes: 0,
    }
}

fn shown(key: &str) -> String {
    key.chars().take(200).collect()
}

/// Records in memory, for tests of drivers.
#[derive(Debug, Default)]
pub struct MemoryRecords(std::sync::Mutex<std::collections::BTreeMap<String, Vec<u8>>>);

impl Records for MemoryRecords {
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in writes {
            match value {
                Some(value) => drop(records.insert(key, value)),
                None => drop(records.remove(&key)),
            }
        }
        Ok(())
    }
}
