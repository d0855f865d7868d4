//! Leases: what a client is working with and nobody else may collect.

use berth_metadata::{Durability, Table, Write};
use berth_types::Timestamp;
use berth_types::label::{self, Labels};
use serde::{Deserialize, Serialize};

use super::{Tenant, exists, unknown};
use crate::{ImageError, Result};

/// RFC 3339; the lease is over then.
pub(super) const EXPIRE: &str = "containerd.io/gc.expire";
/// Resources of one lease.
const RESOURCES_MAX: usize = 100_000;
const ID_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub id: String,
    pub created: Timestamp,
    pub labels: Labels,
}

/// `kind` as containerd names it: `content`, `ingests`, `images`, `snapshots/<snapshotter>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    pub kind: String,
    pub id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    created_ns: i64,
    pub(super) labels: Labels,
    /// Sorted.
    pub(super) resources: Vec<Resource>,
}

impl LeaseRecord {
    /// Only a lease without an end is meant to outlive its client's machine. One that ends guards what a client is at work with, and whoever lost
    /// it to a power failure has lost its client, too. (What a lease guards and what a later write refers to is flushed with that write.)
    fn durability(&self) -> Durability {
        if self.labels.contains_key(EXPIRE) { Durability::Eventual } else { Durability::Immediate }
    }

    /// A lease whose time cannot be read does not end: better kept too long than collected too soon.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.labels.get(EXPIRE).and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|end| end <= now)
    }
}

impl Tenant<'_> {
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for labels beyond their limits.
    pub fn create_lease(&self, id: &str, labels: &Labels) -> Result<Lease> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(ImageError::Invalid { what: "lease", why: "its id is empty or too long".to_owned() });
        }
        label::check(labels)?;
        let _changing = self.store.lock();
        if self.load::<LeaseRecord>(Table::Leases, id)?.is_some() {
            return Err(exists("lease", id));
        }
        let record = LeaseRecord { created_ns: Timestamp::now().0, labels: labels.clone(), resources: Vec::new() };
        self.write_as(vec![self.put(Table::Leases, id, &record)?], record.durability())?;
        Ok(lease(id, &record))
    }

    /// What it alone kept is collected from now on; `is_synchronous`: before this returns.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_lease(&self, id: &str, is_synchronous: bool) -> Result<()> {
        let changing = self.store.lock();
        let lease = self.lease_record(id)?;
        self.write_as(vec![self.delete(Table::Leases, id)], lease.durability())?;
        if is_synchronous {
            self.store.collect_unreferenced(&changing)?;
        } else if lease.resources.iter().any(|held| held.kind == "content") {
            // What a transfer brought and nothing leads to: nobody else would say that it can go. A lease on snapshots alone goes with every
            // container that is made, and says nothing of the kind.
            self.store.collection_is_due(&changing)?;
        }
        Ok(())
    }

    /// # Errors
    /// When records cannot be read.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let records = self.load_all::<LeaseRecord>(Table::Leases)?;
        Ok(records.iter().map(|(id, record)| lease(id, record)).collect())
    }

    /// # Errors
    /// `NotFound`.
    pub fn lease(&self, id: &str) -> Result<Lease> {
        Ok(lease(id, &self.lease_record(id)?))
    }

    /// # Errors
    /// `NotFound`; `InvalidArgument` for an unknown kind of resource.
    pub fn add_resource(&self, lease: &str, resource: Resource) -> Result<()> {
        let _changing = self.store.lock();
        self.write(vec![self.with_resource(lease, resource)?])
    }

    /// The same for several, in one write.
    ///
    /// # Errors
    /// As [`Self::add_resource`]; then none was added.
    pub fn add_resources(&self, lease: &str, resources: Vec<Resource>) -> Result<()> {
        let _changing = self.store.lock();
        self.write(vec![self.with_resources(lease, resources)?])
    }

    /// # Errors
    /// `NotFound` for the lease.
    pub fn delete_resource(&self, lease: &str, resource: &Resource) -> Result<()> {
        let _changing = self.store.lock();
        let mut record = self.lease_record(lease)?;
        record.resources.retain(|held| held != resource);
        self.write(vec![self.put(Table::Leases, lease, &record)?])
    }

    /// # Errors
    /// `NotFound` for the lease.
    pub fn resources(&self, lease: &str) -> Result<Vec<Resource>> {
        Ok(self.lease_record(lease)?.resources)
    }

    /// The write that adds a resource; the caller holds the store's lock.
    pub(super) fn with_resource(&self, lease: &str, resource: Resource) -> Result<Write> {
        self.with_resources(lease, vec![resource])
    }

    pub(super) fn with_resources(&self, lease: &str, resources: Vec<Resource>) -> Result<Write> {
        let mut record = self.lease_record(lease)?;
        for resource in resources {
            let kind = resource.kind.as_str();
            if !matches!(kind, "content" | "ingests" | "images") && !kind.starts_with("snapshots/") {
                return Err(ImageError::Invalid { what: "lease", why: format!("{kind:?} is no kind of resource") });
            }
            if record.resources.len() >= RESOURCES_MAX {
                return Err(ImageError::Invalid {
                    what: "lease",
                    why: format!("it has more than {RESOURCES_MAX} resources"),
                });
            }
            if let Err(at) = record.resources.binary_search(&resource) {
                record.resources.insert(at, resource);
            }
        }
        self.put(Table::Leases, lease, &record)
    }

    fn lease_record(&self, id: &str) -> Result<LeaseRecord> {
        self.load(Table::Leases, id)?.ok_or_else(|| unknown("lease", id))
    }
}

fn lease(id: &str, record: &LeaseRecord) -> Lease {
    Lease { id: id.to_owned(), created: Timestamp(record.created_ns), labels: record.labels.clone() }
}
