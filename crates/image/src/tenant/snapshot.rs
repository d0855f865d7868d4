//! Snapshots of a tenant: the local snapshotter over the store's records, with leases, and with layers that are there already found instead of
//! unpacked again.

use std::sync::{Arc, Mutex, PoisonError};

use berth_metadata::{Durability, Metadata, Table, Write};
use berth_snapshot::{
    Info, LocalSnapshotter, Mount, RecordWrite, Records, RecordsError, SnapshotError, Snapshotter as _, Usage,
};
use berth_types::{ChainId, Classify, ErrorClass, Labels};

use super::Tenant;
use super::lease::Resource;
use crate::Result;

/// What clients of the containerd API call the store's own snapshots, whatever keeps them.
pub const OWN_SNAPSHOTTER: &str = "overlayfs";
/// Set by clients that unpack: the chain id the snapshot will have when it is committed.
pub(super) const WILL_BE: &str = "containerd.io/snapshot.ref";

/// Records of snapshots in the metadata.
#[derive(Debug)]
pub(crate) struct SnapshotRecords {
    metadata: Arc<Metadata>,
    /// What the next write of records takes along, in the same step.
    along: Mutex<Vec<Write>>,
}

impl SnapshotRecords {
    pub(crate) fn new(metadata: Arc<Metadata>) -> Self {
        Self { metadata, along: Mutex::default() }
    }

    fn take_along(&self, writes: Vec<Write>) {
        *self.along.lock().unwrap_or_else(PoisonError::into_inner) = writes;
    }
}

impl Records for SnapshotRecords {
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError> {
        self.metadata.get(Table::Snapshots, key).map_err(records_error)
    }

    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError> {
        self.metadata.list_below(Table::Snapshots, prefix).map_err(records_error)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError> {
        let write = |(key, value): RecordWrite| match value {
            Some(value) => Write::Put { table: Table::Snapshots, key, value },
            None => Write::Delete { table: Table::Snapshots, key },
        };
        let along = std::mem::take(&mut *self.along.lock().unwrap_or_else(PoisonError::into_inner));
        let writes = writes.into_iter().map(write).chain(along).collect();
        self.metadata.write(writes, Durability::Immediate).map_err(records_error)
    }
}

fn records_error(error: berth_metadata::MetadataError) -> RecordsError {
    RecordsError { class: error.class(), source: Box::new(error) }
}

/// A tenant's snapshots. Making and committing them is atomic with their lease.
#[derive(Debug)]
pub struct TenantSnapshotter<'s> {
    tenant: Tenant<'s>,
    local: LocalSnapshotter,
    records: Arc<SnapshotRecords>,
}

impl<'s> Tenant<'s> {
    pub fn snapshots(&self) -> TenantSnapshotter<'s> {
        let records = Arc::new(SnapshotRecords::new(Arc::clone(&self.store.metadata)));
        let shared: Arc<dyn Records> = Arc::<SnapshotRecords>::clone(&records);
        let local = LocalSnapshotter::new(Arc::clone(&self.store.snapshots), shared, &self.key(""));
        TenantSnapshotter { tenant: *self, local, records }
    }
}

impl TenantSnapshotter<'_> {
    /// For what needs no lease: mounts, usage, labels, the plan of a root file system.
    pub fn local(&self) -> &LocalSnapshotter {
        &self.local
    }

    /// A layer of the Docker face's images is found under its chain id although no client committed it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stat(&self, key: &str) -> Result<Info> {
        match self.local.stat(key) {
            Err(error) if error.class() == ErrorClass::NotFound => {
                let _changing = self.tenant.store.lock();
                self.find_layer(key)?;
                Ok(self.local.stat(key)?)
            }
            other => Ok(other?),
        }
    }

    /// Makes a layer of the Docker face known that a snapshot is to be based on. The caller holds the lock, and goes on holding it until the
    /// snapshot is there: a collection in between would forget the layer again.
    fn find_parent(&self, parent: Option<&str>) -> Result<()> {
        match parent.map(|parent| (parent, self.local.stat(parent))) {
            Some((parent, Err(error))) if error.class() == ErrorClass::NotFound => self.find_layer(parent),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::prepare`]; `AlreadyExists` also when the labels say what it will be and that is there: then it is known
    /// under that name, and the client need not unpack it.
    pub fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        let _changing = self.tenant.store.lock();
        self.find_parent(parent)?;
        if let Some(name) = labels.get(WILL_BE)
            && let Ok(chain_id) = name.parse::<ChainId>()
            && self.tenant.store.snapshots.has_layer(&chain_id)
        {
            self.lease_along(lease, name)?;
            match self.local.adopt_layer(name, parent, labels, &chain_id) {
                Err(error) if error.class() != ErrorClass::AlreadyExists => return Err(error.into()),
                _ => {}
            }
            return Err(SnapshotError::Exists { key: name.clone() }.into());
        }
        self.tenant.ensure_known()?;
        self.lease_along(lease, key)?;
        Ok(self.local.prepare(key, parent, labels)?)
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::view`].
    pub fn view(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        let _changing = self.tenant.store.lock();
        self.find_parent(parent)?;
        self.tenant.ensure_known()?;
        self.lease_along(lease, key)?;
        Ok(self.local.view(key, parent, labels)?)
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::commit`].
    pub fn commit(&self, name: &str, key: &str, labels: &Labels, lease: Option<&str>) -> Result<()> {
        let _changing = self.tenant.store.lock();
        self.lease_along(lease, name)?;
        match self.verified_chain(name, key) {
            Some(chain_id) => Ok(self.local.commit_layer(name, key, labels, &chain_id)?),
            None => Ok(self.local.commit(name, key, labels)?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::remove`].
    pub fn remove(&self, key: &str) -> Result<()> {
        let changing = self.tenant.store.lock();
        self.local.remove(key)?;
        self.tenant.store.collection_is_due(&changing)
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::usage`].
    pub fn usage(&self, key: &str) -> Result<Usage> {
        Ok(self.local.usage(key)?)
    }

    /// The chain id a snapshot may be shared under: what it is named, when we unpacked it and everything below it ourselves.
    fn verified_chain(&self, name: &str, key: &str) -> Option<ChainId> {
        let chain_id = name.parse::<ChainId>().ok()?;
        let applied = self.tenant.store.applied(self.tenant.name, key)?;
        (applied == chain_id).then_some(chain_id)
    }

    /// The lease holds a snapshot from the step that records it on: one write to the disk, and nothing to undo. The caller holds the lock.
    fn lease_along(&self, lease: Option<&str>, key: &str) -> Result<()> {
        let Some(lease) = lease else { return Ok(()) };
        let resource = Resource { kind: format!("snapshots/{OWN_SNAPSHOTTER}"), id: key.to_owned() };
        self.records.take_along(vec![self.tenant.with_resource(lease, resource)?]);
        Ok(())
    }

    /// Makes a layer of a Docker image and its parents known in the Docker face's tenant, if there is one. The caller holds the lock.
    fn find_layer(&self, name: &str) -> Result<()> {
        let Ok(chain_id) = name.parse::<ChainId>() else { return Ok(()) };
        if !self.tenant.is_docker() {
            return Ok(());
        }
        for (_, record) in self.tenant.store.records()? {
            let chain = record.chain_ids();
            let Some(at) = chain.iter().position(|known| *known == chain_id) else { continue };
            if !chain[..=at].iter().all(|known| self.tenant.store.snapshots.has_layer(known)) {
                return Ok(());
            }
            let mut parent: Option<String> = None;
            for known in &chain[..=at] {
                let name = known.to_string();
                match self.local.adopt_layer(&name, parent.as_deref(), &Labels::new(), known) {
                    Err(error) if error.class() != ErrorClass::AlreadyExists => return Err(error.into()),
                    _ => parent = Some(name),
                }
            }
            return Ok(());
        }
        Ok(())
    }
}
