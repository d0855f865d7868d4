//! What the containerd API sees of the store: tenants (its namespaces), each with blobs, leases, snapshots and image names of its own, over one
//! content store and one set of layers.
//!
//! The Docker face lives in the tenant [`DOCKER_TENANT`]: there, blobs and names of its images are seen although no record of this module exists
//! for them, and an image named here becomes one of the Docker face's as soon as it is complete.
//!
//! ```text
//! metadata   Namespaces  <tenant>            labels
//!            Blobs       <tenant>/<digest>   BlobRecord
//!            Leases      <tenant>/<id>       LeaseRecord
//!            Names       <tenant>/<name>     NameRecord
//!            Snapshots   <tenant>/<key>      SnapshotRecord of crate `snapshot`
//!            Objects     <tenant>/<kind>/<id>  whatever the containerd face keeps; its fields `labels` and `snapshot_key` are references
//! ```
//!
//! Invariant: a record that makes something live is written under the store's `changing` lock, which collection holds too; so between the moment
//! a blob or snapshot appears and the moment its lease or owner is recorded nothing can be collected (S-114).

mod adopt;
mod archive_in;
mod archive_out;
mod blob;
mod diff;
mod document;
pub(crate) mod gc;
mod lease;
mod name;
mod namespace;
mod proxied;
mod snapshot;
mod suiting;
mod unpack;

use berth_metadata::{Durability, Table, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use archive_in::Imported;
pub use archive_out::ExportOptions;
pub use blob::{BlobInfo, BlobWriter, Expectation};
pub use diff::{AppliedLayer, CreatedLayer, LayerFormat};
pub use document::{Child, Leads, Parts};
pub use lease::{Lease, Resource};
pub use name::{NamedImage, Target};
pub use namespace::Namespace;
pub use proxied::TenantSnapshots;
pub use snapshot::{OWN_SNAPSHOTTER, TenantSnapshotter};
pub use suiting::ManifestFilter;
pub use unpack::UnpackedLayer;

use crate::store::ImageStore;
use crate::{ImageError, Result};

/// The tenant whose images the Docker face shows.
pub const DOCKER_TENANT: &str = "default";
/// containerd's limit of identifiers.
const NAME_BYTES_MAX: usize = 76;

/// One tenant's view of the store.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'s> {
    store: &'s ImageStore,
    name: &'s str,
}

impl ImageStore {
    /// # Errors
    /// `InvalidArgument` for a name that is no identifier (containerd `identifiers`: letters and digits, single `.`, `-`, `_` between them).
    pub fn tenant<'s>(&'s self, name: &'s str) -> Result<Tenant<'s>> {
        check_name(name)?;
        Ok(Tenant { store: self, name })
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if name.len() <= NAME_BYTES_MAX && name.split(['.', '-', '_']).all(is_part) {
        return Ok(());
    }
    Err(ImageError::Invalid { what: "namespace", why: format!("{:?} is no identifier", shown(name)) })
}

impl<'s> Tenant<'s> {
    pub fn name(&self) -> &'s str {
        self.name
    }

    fn is_docker(&self) -> bool {
        self.name == DOCKER_TENANT
    }

    fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("{}/{rest}", self.name)
    }

    fn load<T: DeserializeOwned>(&self, table: Table, rest: &str) -> Result<Option<T>> {
        let key = self.key(rest);
        self.store.metadata.get(table, &key)?.map(|bytes| parse(&key, &bytes)).transpose()
    }

    /// Records of this tenant: what follows its name in the key, and the record.
    fn load_all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        let prefix = self.key("");
        let records = self.store.metadata.list_below(table, &prefix)?;
        records.into_iter().map(|(key, bytes)| Ok((key[prefix.len()..].to_owned(), parse(&key, &bytes)?))).collect()
    }

    fn put(&self, table: Table, rest: &str, record: &impl Serialize) -> Result<Write> {
        let key = self.key(rest);
        let value = serde_json::to_vec(record).map_err(|source| ImageError::Record { id: key.clone(), source })?;
        Ok(Write::Put { table, key, value })
    }

    fn delete(&self, table: Table, rest: &str) -> Write {
        Write::Delete { table, key: self.key(rest) }
    }

    /// A tenant that keeps something exists: what is kept for tenants nobody knows is swept.
    fn ensure_known(&self) -> Result<()> {
        if self.store.metadata.get(Table::Namespaces, self.name)?.is_none() {
            self.write(Vec::new())?;
        }
        Ok(())
    }

    /// Writes durably; a tenant that writes exists.
    fn write(&self, writes: Vec<Write>) -> Result<()> {
        self.write_as(writes, Durability::Immediate)
    }

    fn write_as(&self, mut writes: Vec<Write>, durability: Durability) -> Result<()> {
        if self.store.metadata.get(Table::Namespaces, self.name)?.is_none() {
            writes.push(Write::Put { table: Table::Namespaces, key: self.name.to_owned(), value: b"{}".to_vec() });
        }
        Ok(self.store.metadata.write(writes, durability)?)
    }
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Record { id: shown(key), source })
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

fn unknown(what: &'static str, name: impl std::fmt::Display) -> ImageError {
    ImageError::Unknown { what, name: shown(&name.to_string()) }
}

fn exists(what: &'static str, name: impl std::fmt::Display) -> ImageError {
    ImageError::Exists { what, name: shown(&name.to_string()) }
}

#[cfg(test)]
mod tests;
