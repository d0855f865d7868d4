//! Mounts that were activated by name (containerd 2.2's mount manager).

use berth_metadata::{Durability, Table};
use berth_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, Object, ObjectError, Result, check_labels};
use crate::filter::{Fields, map_field, text_field};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    pub name: String,
    #[serde(default)]
    pub active: Vec<ActiveMount>,
    /// What is left for the runtime to mount.
    #[serde(default)]
    pub system: Vec<MountPoint>,
    #[serde(default)]
    pub labels: Labels,
    /// The lease that holds it: it goes when the lease goes.
    #[serde(default)]
    pub lease: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveMount {
    pub mount: MountPoint,
    pub mounted_at: Timestamp,
    pub mount_point: String,
    #[serde(default)]
    pub data: Labels,
}

/// A mount in mount(8)'s terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub fstype: String,
    pub source: String,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub options: Vec<String>,
}

impl Object for Activation {
    const TABLE: Table = Table::Mounts;
    const KIND: &'static str = "mount";
    /// Mounts end with the machine.
    const DURABILITY: Durability = Durability::Eventual;

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<()> {
        if self.name.is_empty() {
            return Err(ObjectError::invalid("mount name", "", "it may not be empty"));
        }
        check_labels(&self.labels)
    }
}

impl Fields for Activation {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => text_field(&self.name),
            ["labels", key @ ..] => map_field(key, &self.labels),
            _ => None,
        }
    }
}
