//! Directories of checkpoints: what a shim writes, or restores from.
//!
//! ```text
//! <state>/checkpoints/<tenant>/<id>/saved-N/   one call's, while it is made
//!                                   restored/  of a task that was made from one, until the task goes
//! ```

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Fleet, FleetError, Result};
use crate::objects::Tenant;

const RESTORED: &str = "restored";

/// A directory for one checkpoint, gone with this.
#[derive(Debug)]
pub struct CheckpointDir(PathBuf);

impl CheckpointDir {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CheckpointDir {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

impl Fleet {
    fn checkpoints_of(&self, tenant: &Tenant, id: &str) -> PathBuf {
        self.options.dir.with_file_name("checkpoints").join(tenant.as_str()).join(id)
    }

    /// An empty directory that no other call has.
    ///
    /// # Errors
    /// The file system's.
    pub fn new_checkpoint_dir(&self, tenant: &Tenant, id: &str) -> Result<CheckpointDir> {
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let dir = CheckpointDir(self.checkpoints_of(tenant, id).join(format!("saved-{number}")));
        // Of a daemon that was killed at it.
        remove(dir.path());
        make(dir.path())?;
        Ok(dir)
    }

    /// An empty directory for what a task is to be made from.
    ///
    /// # Errors
    /// The file system's.
    pub fn new_restored_dir(&self, tenant: &Tenant, id: &str) -> Result<PathBuf> {
        self.drop_restored_from(tenant, id);
        let path = self.checkpoints_of(tenant, id).join(RESTORED);
        make(&path)?;
        Ok(path)
    }

    /// After a restart: what a killed daemon was writing, and images of tasks that are no more.
    pub(super) fn drop_stale_checkpoints(&self) {
        let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().collect::<Vec<_>>();
        for tenant_dir in entries(&self.options.dir.with_file_name("checkpoints")) {
            let tenant = tenant_dir.file_name().to_str().and_then(|name| name.parse::<Tenant>().ok());
            for task_dir in entries(&tenant_dir.path()) {
                let id = task_dir.file_name().to_string_lossy().into_owned();
                let is_used = tenant.as_ref().is_some_and(|tenant| self.member(tenant, &id).is_ok());
                for found in entries(&task_dir.path()) {
                    if !is_used || found.file_name() != RESTORED {
                        remove(&found.path());
                    }
                }
            }
        }
    }

    /// The images are not needed any more; there may be none.
    pub fn drop_restored_from(&self, tenant: &Tenant, id: &str) {
        remove(&self.checkpoints_of(tenant, id).join(RESTORED));
    }
}

fn make(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FleetError::Bundle {
        operation: "create",
        path: path.to_owned(),
        source,
    })
}

/// It holds files of criu's and its own alone. The parents go with their last.
fn remove(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => drop(path.parent().map(std::fs::remove_dir)),
    }
}
