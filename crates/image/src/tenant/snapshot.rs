//! Snapshots of a tenant: the local snapshotter over the store's records, with leases, and with layers that are there already found instead of
//! unpacked again.

use std::sync::Arc;

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
pub(crate) struct SnapshotRecords(pub(crate) Arc<Metadata>);

impl Records for SnapshotRecords {
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError> {
        self.0.get(Table::Snapshots, key).map_err(records_error)
    }

    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError> {
        self.0.list_below(Table::Snapshots, prefix).map_err(records_error)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError> {
        let write = |(key, value): RecordWrite| match value {
            Some(value) => Write::Put { table: Table::Snapshots, key, value },
            None => Write::Delete { table: Table::Snapshots, key },
        };
        self.0.write(writes.into_iter().map(write).collect(), Durability::Immediate).map_err(records_error)
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
}

impl<'s> Tenant<'s> {
    pub fn snapshots(&self) -> TenantSnapshotter<'s> {
        let records = Arc::new(SnapshotRecords(Arc::clone(&self.store.metadata)));
        let local = LocalSnapshotter::new(Arc::clone(&self.store.snapshots), records, &self.key(""));
        TenantSnapshotter { tenant: *self, local }
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
            Err(error) if error.class() == ErrorClass::NotFound && self.find_layer(key)? => Ok(self.local.stat(key)?),
            other => Ok(other?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::prepare`]; `AlreadyExists` also when the labels say what it will be and that is there: then it is known
    /// under that name, and the client need not unpack it.
    pub fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        if let Some(parent) = parent {
            // Makes a layer of the Docker face known.
            drop(self.stat(parent));
        }
        let _changing = self.tenant.store.lock();
        if let Some(name) = labels.get(WILL_BE)
            && let Ok(chain_id) = name.parse::<ChainId>()
            && self.tenant.store.snapshots.has_layer(&chain_id)
        {
            match self.local.adopt_layer(name, parent, labels, &chain_id) {
                Ok(()) => self.lease(lease, name)?,
                Err(error) if error.class() == ErrorClass::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            return Err(SnapshotError::Exists { key: name.clone() }.into());
        }
        self.tenant.ensure_known()?;
        let mounts = self.local.prepare(key, parent, labels)?;
        self.lease_or_undo(lease, key)?;
        Ok(mounts)
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::view`].
    pub fn view(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        if let Some(parent) = parent {
            drop(self.stat(parent));
        }
        let _changing = self.tenant.store.lock();
        self.tenant.ensure_known()?;
        let mounts = self.local.view(key, parent, labels)?;
        self.lease_or_undo(lease, key)?;
        Ok(mounts)
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::commit`].
    pub fn commit(&self, name: &str, key: &str, labels: &Labels, lease: Option<&str>) -> Result<()> {
        let _changing = self.tenant.store.lock();
        match self.verified_chain(name, key) {
            Some(chain_id) => self.local.commit_layer(name, key, labels, &chain_id)?,
            None => self.local.commit(name, key, labels)?,
        }
        self.lease(lease, name)
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

    fn lease(&self, lease: Option<&str>, key: &str) -> Result<()> {
        let Some(lease) = lease else { return Ok(()) };
        let resource = Resource { kind: format!("snapshots/{OWN_SNAPSHOTTER}"), id: key.to_owned() };
        self.tenant.write(vec![self.tenant.with_resource(lease, resource)?])
    }

    fn lease_or_undo(&self, lease: Option<&str>, key: &str) -> Result<()> {
        let leased = self.lease(lease, key);
        if leased.is_err() {
            // The first error is the one that matters; what stays is collected.
            self.local.remove(key).ok();
        }
        leased
    }

    /// Makes a layer of a Docker image and its parents known in the Docker face's tenant. Tells whether there is one.
    fn find_layer(&self, name: &str) -> Result<bool> {
        let Ok(chain_id) = name.parse::<ChainId>() else { return Ok(false) };
        if !self.tenant.is_docker() {
            return Ok(false);
        }
        let _changing = self.tenant.store.lock();
        for (_, record) in self.tenant.store.records()? {
            let chain = record.chain_ids();
            let Some(at) = chain.iter().position(|known| *known == chain_id) else { continue };
            if !chain[..=at].iter().all(|known| self.tenant.store.snapshots.has_layer(known)) {
                return Ok(false);
            }
            let mut parent: Option<String> = None;
            for known in &chain[..=at] {
                let name = known.to_string();
                match self.local.adopt_layer(&name, parent.as_deref(), &Labels::new(), known) {
                    Err(error) if error.class() != ErrorClass::AlreadyExists => return Err(error.into()),
                    _ => parent = Some(name),
                }
            }
            return Ok(true);
        }
        Ok(false)
    }
}
