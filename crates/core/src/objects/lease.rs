//! A lease: what it names is not collected while it exists.

use berth_metadata::{Durability, Table};
use berth_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, Object, ObjectError, Result, check_labels};
use crate::filter::{Fields, map_field, text_field};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub created_at: Timestamp,
    #[serde(default)]
    pub resources: Vec<LeaseResource>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseResource {
    pub id: String,
    /// `content`, `ingests`, `images`, `snapshots/<snapshotter>`.
    pub kind: String,
}

impl Object for Lease {
    const TABLE: Table = Table::Leases;
    const KIND: &'static str = "lease";
    /// A lease guards work under way; after a power loss there is none.
    const DURABILITY: Durability = Durability::Eventual;

    fn name(&self) -> &str {
        &self.id
    }

    fn check(&self) -> Result<()> {
        if self.id.is_empty() || self.id.contains('\0') {
            return Err(ObjectError::invalid("lease id", self.id.clone(), "it may not be empty"));
        }
        check_labels(&self.labels)
    }
}

impl Lease {
    /// The instant from which it no longer counts (label `containerd.io/gc.expire`, RFC 3339).
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.labels.get("containerd.io/gc.expire")?.parse().ok()
    }
}

impl LeaseResource {
    /// # Errors
    /// `Unimplemented`-like refusals are `InvalidArgument`: nothing of that kind can be held.
    pub fn check(&self) -> Result<()> {
        let is_known = matches!(self.kind.as_str(), "content" | "ingests" | "images")
            || self.kind.strip_prefix("snapshots/").is_some_and(|snapshotter| !snapshotter.is_empty());
        let rule = "a lease holds content, ingests, images or snapshots/<snapshotter>";
        if is_known { Ok(()) } else { Err(ObjectError::invalid("resource type", self.kind.clone(), rule)) }
    }
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => text_field(&self.id),
            ["labels", key @ ..] => map_field(key, &self.labels),
            _ => None,
        }
    }
}
