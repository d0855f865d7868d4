//! A tenant's own record: that it exists, and its labels.

use berth_metadata::Table;
use serde::{Deserialize, Serialize};

use super::{Labels, Object, Result, check_identifier, check_labels};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub name: String,
    #[serde(default)]
    pub labels: Labels,
}

impl Object for Namespace {
    const TABLE: Table = Table::Namespaces;
    const KIND: &'static str = "namespace";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<()> {
        check_identifier("namespace", &self.name)?;
        check_labels(&self.labels)
    }
}
