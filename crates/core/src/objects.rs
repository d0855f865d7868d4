//! Containers and sandboxes of containerd's shape, kept on the metadata database, the tenant first in the key.
//!
//! ```text
//! table Objects   <tenant>/containers/<id>  -> ContainerObject as JSON
//!                 <tenant>/sandboxes/<id>   -> Sandbox
//! table Namespaces  <tenant>                -> labels (crate image; a tenant that has something exists)
//! ```
//! What it is not: images, blobs, snapshots and leases (crate `image`), policy about containers (the engine's), wire formats (the faces'),
//! running tasks ([`crate::fleet`]).
//! A tenant is what the API calls a namespace; its name never holds a slash, so keys of two tenants never meet.
//! Lock order: `changing` alone, held across one read and the write that depends on it; may wait for the disk, so callers
//! with an event loop use a thread for blocking work.

mod any;
mod container;
mod error;
mod identifier;
mod mount;
mod sandbox;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use berth_metadata::{Durability, Metadata, Table, Write};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use any::AnyValue;
pub use container::{ContainerObject, RuntimeChoice};
pub use error::ObjectError;
pub use identifier::{Tenant, check_identifier};
pub use mount::MountPoint;
pub use sandbox::Sandbox;

type Result<T> = std::result::Result<T, ObjectError>;

/// A kind of object: where it is kept and what it is called.
pub trait Object: Serialize + DeserializeOwned + Clone {
    /// Part of its key.
    const FOLDER: &'static str;
    /// As errors call it.
    const KIND: &'static str;

    /// Its name within the tenant.
    fn name(&self) -> &str;

    /// # Errors
    /// `InvalidArgument` for what may not be stored.
    fn check(&self) -> Result<()>;
}

/// All objects of a data root.
#[derive(Debug)]
pub struct Objects {
    metadata: Arc<Metadata>,
    changing: Mutex<()>,
}

fn key<T: Object>(tenant: &Tenant, name: &str) -> String {
    format!("{tenant}/{}/{name}", T::FOLDER)
}

fn decode<T: Object>(key: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| ObjectError::Damaged {
        kind: T::KIND,
        key: key.to_owned(),
        detail: source.to_string(),
    })
}

impl Objects {
    pub fn new(metadata: Arc<Metadata>) -> Self {
        Self { metadata, changing: Mutex::new(()) }
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn find<T: Object>(&self, tenant: &Tenant, name: &str) -> Result<Option<T>> {
        let key = key::<T>(tenant, name);
        self.metadata.get(Table::Objects, &key)?.map(|bytes| decode(&key, &bytes)).transpose()
    }

    /// # Errors
    /// `NotFound`.
    pub fn get<T: Object>(&self, tenant: &Tenant, name: &str) -> Result<T> {
        self.find(tenant, name)?.ok_or_else(|| ObjectError::not_found::<T>(name))
    }

    /// Of one tenant, sorted by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list<T: Object>(&self, tenant: &Tenant) -> Result<Vec<T>> {
        let records = self.metadata.list_below(Table::Objects, &key::<T>(tenant, ""))?;
        records.iter().map(|(key, bytes)| decode(key, bytes)).collect()
    }

    /// Of all tenants.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list_all<T: Object>(&self) -> Result<Vec<(Tenant, T)>> {
        let mut all = Vec::new();
        for (key, bytes) in self.metadata.list(Table::Objects)? {
            let mut parts = key.splitn(3, '/');
            let (tenant, folder) = (parts.next().unwrap_or_default(), parts.next());
            if folder == Some(T::FOLDER) {
                all.push((tenant.parse()?, decode(&key, &bytes)?));
            }
        }
        Ok(all)
    }

    /// # Errors
    /// `AlreadyExists`, `InvalidArgument`.
    pub fn create<T: Object>(&self, tenant: &Tenant, object: &T) -> Result<()> {
        object.check()?;
        let _turn = self.changing.lock();
        if self.find::<T>(tenant, object.name())?.is_some() {
            return Err(ObjectError::exists::<T>(object.name()));
        }
        self.put(tenant, object)
    }

    /// Changes what is there as one step; nothing is written when `change` refuses.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`, what `change` says.
    pub fn update<T: Object>(
        &self,
        tenant: &Tenant,
        name: &str,
        change: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<T> {
        let _turn = self.changing.lock();
        let mut object: T = self.get(tenant, name)?;
        change(&mut object)?;
        object.check()?;
        self.put(tenant, &object)?;
        Ok(object)
    }

    /// Forgets it and gives it back.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete<T: Object>(&self, tenant: &Tenant, name: &str) -> Result<T> {
        let _turn = self.changing.lock();
        let object = self.get::<T>(tenant, name)?;
        let delete = Write::Delete { table: Table::Objects, key: key::<T>(tenant, name) };
        self.metadata.write(vec![delete], Durability::Immediate)?;
        Ok(object)
    }

    fn put<T: Object>(&self, tenant: &Tenant, object: &T) -> Result<()> {
        let value = serde_json::to_vec(object).map_err(|source| ObjectError::Damaged {
            kind: T::KIND,
            key: object.name().to_owned(),
            detail: source.to_string(),
        })?;
        let mut writes = vec![Write::Put { table: Table::Objects, key: key::<T>(tenant, object.name()), value }];
        if self.metadata.get(Table::Namespaces, tenant.as_str())?.is_none() {
            writes.push(Write::Put { table: Table::Namespaces, key: tenant.to_string(), value: b"{}".to_vec() });
        }
        Ok(self.metadata.write(writes, Durability::Immediate)?)
    }
}
