//! `state` and `features`: documents.

use std::path::Path;

use berth_runtime::Saved;

use super::{pretty, print};
use crate::error::CommandError;
use crate::paths;

/// A container as runc shows it: the specification's state and a little more.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) status: &'static str,
    pub(crate) bundle: String,
    pub(crate) rootfs: String,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    /// Empty in `state`.
    pub(crate) owner: String,
}

impl Description {
    pub(crate) fn new(saved: &Saved, owner: String) -> Self {
        let state = saved.container.state();
        Self {
            oci_version: state.oci_version,
            id: state.id,
            pid: state.pid,
            status: state.status.text(),
            bundle: state.bundle.display().to_string(),
            rootfs: saved.rootfs.display().to_string(),
            created: saved.created.to_string(),
            annotations: state.annotations.into_iter().collect(),
            owner,
        }
    }
}

pub(crate) fn state(root: &Path, id: &str) -> Result<(), CommandError> {
    print(&pretty(&Description::new(&paths::saved(root, id)?, String::new()))?);
    Ok(())
}

pub(crate) fn features() -> Result<(), CommandError> {
    print(&pretty(&berth_runtime::features(env!("CARGO_PKG_VERSION")))?);
    Ok(())
}
