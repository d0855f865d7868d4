//! What tenants need, by containerd's rules: image names, leases, containers and labelled objects are roots; blobs, snapshots and names lead to
//! each other by labels. What no root leads to loses its record; bytes that no record of any tenant names are the store's to remove.

use std::collections::{BTreeSet, HashSet};

use berth_metadata::{Table, Write};
use berth_snapshot::{Place, SnapshotRecord};
use berth_types::{ChainId, Digest, Labels, Timestamp};
use serde::Deserialize;

use super::blob::BlobRecord;
use super::lease::LeaseRecord;
use super::name::NameRecord;
use super::{OWN_SNAPSHOTTER, Tenant, parse};
use crate::Result;
use crate::store::{CollectedSnapshot, ImageStore};

pub(super) const ROOT: &str = "containerd.io/gc.root";
const FLAT: &str = "containerd.io/gc.flat";
pub(super) const REF_CONTENT: &str = "containerd.io/gc.ref.content";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
const REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// An ingest nobody leases is thrown away when nothing was written to it for so long (containerd's default).
const INGEST_IDLE_NS: i64 = 24 * 3600 * 1_000_000_000;

/// What the tenants' records name after a collection.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) layers: HashSet<ChainId>,
    pub(crate) homes: BTreeSet<u64>,
    /// Of external snapshotters: the snapshotter and the full key. What is below them is needed too.
    pub(crate) foreign: HashSet<(String, String)>,
    /// Snapshots of our own snapshotter that no record names any more.
    gone: Vec<CollectedSnapshot>,
}

/// An object of a tenant that can be live.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    Blob(Digest),
    Snapshot(String),
    /// Of an external snapshotter.
    Foreign(String, String),
    Name(String),
}

/// What collection reads of an object of the containerd face.
#[derive(Debug, Default, Deserialize)]
struct Object {
    #[serde(default)]
    snapshot_key: Option<String>,
    #[serde(default)]
    snapshotter: Option<String>,
    #[serde(default)]
    labels: Labels,
}

impl ImageStore {
    /// Deletes the records no root of their tenant leads to. Returns what the others name. The caller holds the lock.
    /// Without `deletes` nothing is deleted; what would stay is told all the same.
    pub(crate) fn collect_tenants(&self, deletes: bool) -> Result<Needed> {
        let mut needed = Needed::default();
        let mut writes = Vec::new();
        for namespace in self.namespaces()? {
            let tenant = Tenant { store: self, name: &namespace.name };
            let sweep = Sweep::load(tenant)?;
            if deletes {
                sweep.drop_idle_ingests()?;
            }
            sweep.run(&mut needed, &mut writes)?;
        }
        if deletes && !writes.is_empty() {
            self.write(writes)?;
            for snapshot in std::mem::take(&mut needed.gone) {
                self.collected(snapshot);
            }
        }
        Ok(needed)
    }
}

/// The records of one tenant, and what was found live among them.
struct Sweep<'s> {
    tenant: Tenant<'s>,
    blobs: Vec<(String, BlobRecord)>,
    leases: Vec<(String, LeaseRecord)>,
    names: Vec<(String, NameRecord)>,
    snapshots: Vec<(String, SnapshotRecord)>,
    live: HashSet<Node>,
}

impl<'s> Sweep<'s> {
    fn load(tenant: Tenant<'s>) -> Result<Self> {
        Ok(Self {
            blobs: tenant.load_all(Table::Blobs)?,
            leases: tenant.load_all(Table::Leases)?,
            names: tenant.load_all(Table::Names)?,
            snapshots: tenant.load_all(Table::Snapshots)?,
            live: HashSet::new(),
            tenant,
        })
    }

    fn run(mut self, needed: &mut Needed, writes: &mut Vec<Write>) -> Result<()> {
        let mut pending = self.roots(writes)?;
        while let Some(node) = pending.pop() {
            if self.live.insert(node.clone()) {
                pending.extend(self.references(&node)?);
            }
        }
        for (digest, _) in &self.blobs {
            match digest.parse::<Digest>() {
                Ok(parsed) if self.live.contains(&Node::Blob(parsed)) => drop(needed.blobs.insert(parsed)),
                _ => writes.push(self.tenant.delete(Table::Blobs, digest)),
            }
        }
        needed.foreign.extend(self.live.iter().filter_map(|node| match node {
            Node::Foreign(snapshotter, key) => Some((snapshotter.clone(), self.tenant.key(key))),
            _ => None,
        }));
        for (key, record) in &self.snapshots {
            if !self.live.contains(&Node::Snapshot(key.clone())) {
                writes.push(self.tenant.delete(Table::Snapshots, key));
                needed.gone.push(CollectedSnapshot {
                    tenant: self.tenant.name.to_owned(),
                    snapshotter: OWN_SNAPSHOTTER.to_owned(),
                    key: key.clone(),
                });
                continue;
            }
            match record.place {
                Place::Layer(chain_id) => drop(needed.layers.insert(chain_id)),
                Place::Own(number) => drop(needed.homes.insert(number)),
            }
        }
        Ok(())
    }

    fn roots(&mut self, writes: &mut Vec<Write>) -> Result<Vec<Node>> {
        let mut roots: Vec<Node> = self.names.iter().map(|(name, _)| Node::Name(name.clone())).collect();
        let now = Timestamp::now();
        for (id, lease) in &self.leases {
            if lease.is_over(now) {
                writes.push(self.tenant.delete(Table::Leases, id));
                continue;
            }
            for resource in &lease.resources {
                let node = match resource.kind.as_str() {
                    "content" => resource.id.parse().ok().map(Node::Blob),
                    "images" => Some(Node::Name(resource.id.clone())),
                    "ingests" => None,
                    kind => Some(self.snapshot(kind.strip_prefix("snapshots/").unwrap_or(""), &resource.id)),
                };
                let Some(node) = node else { continue };
                if lease.labels.contains_key(FLAT) {
                    // Live itself, without what it leads to; unless another root leads there too.
                    self.live.insert(node);
                } else {
                    roots.push(node);
                }
            }
            self.add_references(&lease.labels, &mut roots);
        }
        let is_root = |labels: &Labels| labels.contains_key(ROOT);
        for (digest, record) in self.blobs.iter().filter(|(_, record)| is_root(&record.labels)) {
            let _: &BlobRecord = record;
            roots.extend(digest.parse().ok().map(Node::Blob));
        }
        let rooted = self.snapshots.iter().filter(|(_, record)| is_root(record.labels()));
        roots.extend(rooted.map(|(key, _)| Node::Snapshot(key.clone())));
        let prefix = self.tenant.key("");
        for (key, bytes) in self.tenant.store.metadata.list_below(Table::Objects, &prefix)? {
            // Not every object refers to something.
            let object: Object = parse(&key, &bytes).unwrap_or_default();
            let key = object.snapshot_key.filter(|key| !key.is_empty());
            roots.extend(key.map(|key| self.snapshot(object.snapshotter.as_deref().unwrap_or(""), &key)));
            self.add_references(&object.labels, &mut roots);
        }
        // A flat lease must not hide what other roots lead to: their nodes are walked although they are live already.
        let flat = std::mem::take(&mut self.live);
        let rest: Vec<Node> = flat.into_iter().filter(|node| !roots.contains(node)).collect();
        self.live.extend(rest);
        Ok(roots)
    }

    fn references(&self, node: &Node) -> Result<Vec<Node>> {
        let mut found = Vec::new();
        match node {
            Node::Name(name) => {
                if let Some((_, record)) = self.names.iter().find(|(known, _)| known == name) {
                    found.push(Node::Blob(record.target.digest));
                    self.add_references(&record.labels, &mut found);
                }
            }
            // What is below them is their snapshotter's to tell.
            Node::Foreign(..) => {}
            Node::Blob(digest) => {
                let text = digest.to_string();
                if let Ok(at) = self.blobs.binary_search_by(|(known, _)| known.cmp(&text)) {
                    let labels = &self.blobs[at].1.labels;
                    self.add_references(labels, &mut found);
                    if !labels.keys().any(|key| key.starts_with(REF_CONTENT)) {
                        // A manifest or an index that no client labelled leads to what it names.
                        let children = self.tenant.store.children(digest);
                        found.extend(children.iter().flat_map(|children| children.iter().copied()).map(Node::Blob));
                    }
                }
            }
            Node::Snapshot(key) => {
                if let Ok(at) = self.snapshots.binary_search_by(|(known, _)| known.cmp(key)) {
                    let record = &self.snapshots[at].1;
                    found.extend(record.parent.clone().map(Node::Snapshot));
                    self.add_references(record.labels(), &mut found);
                }
            }
        }
        Ok(found)
    }

    fn drop_idle_ingests(&self) -> Result<()> {
        let now = Timestamp::now();
        let is_held = |reference: &str| {
            let live = self.leases.iter().filter(|(_, lease)| !lease.is_over(now));
            live.flat_map(|(_, lease)| &lease.resources).any(|held| held.kind == "ingests" && held.id == reference)
        };
        for status in self.tenant.store.content.ingest_statuses(Some(self.tenant.name))? {
            if now.0.saturating_sub(status.updated.0) > INGEST_IDLE_NS && !is_held(&status.reference) {
                // Somebody opened it just now: it is not idle.
                self.tenant.store.content.abort(self.tenant.name, &status.reference).ok();
            }
        }
        Ok(())
    }

    /// A snapshot by the name of its snapshotter.
    fn snapshot(&self, snapshotter: &str, key: &str) -> Node {
        if self.tenant.store.proxies().iter().any(|proxy| proxy.name() == snapshotter) {
            return Node::Foreign(snapshotter.to_owned(), key.to_owned());
        }
        Node::Snapshot(key.to_owned())
    }

    /// What labels lead to (containerd `docs/garbage-collection.md`).
    fn add_references(&self, labels: &Labels, found: &mut Vec<Node>) {
        let is_kind = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
        for (key, value) in labels {
            if key.strip_prefix(REF_CONTENT).is_some_and(is_kind) {
                found.extend(value.parse().ok().map(Node::Blob));
            } else if let Some(snapshotter) = key.strip_prefix(REF_SNAPSHOT) {
                found.push(self.snapshot(snapshotter.split('/').next().unwrap_or(""), value));
            } else if key.strip_prefix(REF_IMAGE).is_some_and(is_kind) {
                found.push(Node::Name(value.clone()));
            }
        }
    }
}
