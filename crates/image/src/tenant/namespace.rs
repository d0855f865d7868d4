//! Tenants as objects: they exist from their first write on, and can be removed when nothing is left in them.

use berth_metadata::{Table, Write};
use berth_types::label::{self, Labels};

use super::{DOCKER_TENANT, check_name, exists, parse, unknown};
use crate::store::ImageStore;
use crate::{ImageError, Result};

/// Tables with records of tenants.
const OWNED: [(Table, &str); 5] = [
    (Table::Names, "images"),
    (Table::Blobs, "blobs"),
    (Table::Snapshots, "snapshots"),
    (Table::Leases, "leases"),
    (Table::Objects, "containers"),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

impl ImageStore {
    /// All tenants, by name; the Docker face's always exists.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        let mut found = Vec::new();
        for (name, bytes) in self.metadata.list(Table::Namespaces)? {
            found.push(Namespace { labels: parse(&name, &bytes)?, name });
        }
        if let Err(at) = found.binary_search_by(|namespace| namespace.name.as_str().cmp(DOCKER_TENANT)) {
            found.insert(at, Namespace { name: DOCKER_TENANT.to_owned(), labels: Labels::new() });
        }
        Ok(found)
    }

    /// # Errors
    /// `NotFound`.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let found = self.namespaces()?.into_iter().find(|namespace| namespace.name == name);
        found.ok_or_else(|| unknown("namespace", name))
    }

    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a name that is no identifier.
    pub fn create_namespace(&self, name: &str, labels: &Labels) -> Result<Namespace> {
        check_name(name)?;
        let _changing = self.lock();
        if self.metadata.get(Table::Namespaces, name)?.is_some() {
            return Err(exists("namespace", name));
        }
        self.put_namespace(name, labels)
    }

    /// # Errors
    /// `NotFound`; `InvalidArgument` for other fields than labels.
    pub fn update_namespace(&self, name: &str, labels: &Labels, fields: &[String]) -> Result<Namespace> {
        let _changing = self.lock();
        let current = self.namespace(name)?.labels;
        self.put_namespace(name, &label::updated(current, labels, fields)?)
    }

    /// # Errors
    /// `NotFound`; `FailedPrecondition` while anything is in it.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        let _changing = self.lock();
        self.namespace(name)?;
        let prefix = format!("{name}/");
        for (table, what) in OWNED {
            if !self.metadata.list_below(table, &prefix)?.is_empty() {
                return Err(ImageError::Conflict { why: format!("namespace {name:?} is not empty: it has {what}") });
            }
        }
        self.write(vec![Write::Delete { table: Table::Namespaces, key: name.to_owned() }])
    }

    fn put_namespace(&self, name: &str, labels: &Labels) -> Result<Namespace> {
        label::check(labels)?;
        let value = serde_json::to_vec(labels).map_err(|source| ImageError::Record { id: name.to_owned(), source })?;
        self.write(vec![Write::Put { table: Table::Namespaces, key: name.to_owned(), value }])?;
        Ok(Namespace { name: name.to_owned(), labels: labels.clone() })
    }
}
