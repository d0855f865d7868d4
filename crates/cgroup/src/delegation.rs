//! v2: a group has a controller's files only if every ancestor names the controller in `cgroup.subtree_control`.

use std::path::{Path, PathBuf};

use crate::error::CgroupError;
use crate::file::Directory;

const AVAILABLE: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// Enables controllers on the way down to `directory`, as far as the ancestors allow.
///
/// A refusal is no error yet: not every controller can go everywhere (a parent with processes of its own, realtime processes). A
/// setting that needs the controller enables it by itself and says why it cannot.
pub(crate) fn enable_all(mount: &Path, controllers: &[String], directory: &Directory) -> Result<(), CgroupError> {
    let have = directory.read(AVAILABLE)?;
    if controllers.iter().all(|controller| names(&have, controller)) {
        return Ok(());
    }
    for parent in parents(mount, &directory.path) {
        let parent = Directory::open(parent.clone()).map_err(|source| CgroupError::Open { path: parent, source })?;
        let (available, enabled) = (parent.read(AVAILABLE)?, parent.read(ENABLED)?);
        let missing = |controller: &&String| names(&available, controller) && !names(&enabled, controller);
        let missing: Vec<String> = controllers.iter().filter(missing).map(|name| format!("+{name}")).collect();
        if missing.is_empty() || parent.write(ENABLED, &missing.join(" ")).is_ok() {
            continue;
        }
        for controller in missing {
            parent.write(ENABLED, &controller).unwrap_or_default();
        }
    }
    Ok(())
}

/// Enables one controller on the way down, or says where it could not be.
pub(crate) fn enable(
    limit: &'static str,
    mount: &Path,
    controller: &str,
    directory: &Directory,
) -> Result<(), CgroupError> {
    for parent in parents(mount, &directory.path) {
        let parent = Directory::open(parent.clone()).map_err(|source| CgroupError::Open { path: parent, source })?;
        if names(&parent.read(ENABLED)?, controller) {
            continue;
        }
        let value = format!("+{controller}");
        parent.write(ENABLED, &value).map_err(|source| CgroupError::Write {
            limit,
            file: parent.file(ENABLED),
            value,
            source,
        })?;
    }
    Ok(())
}

fn names(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|name| name == controller)
}

/// From the mount's root down to the parent.
fn parents(mount: &Path, path: &Path) -> Vec<PathBuf> {
    let mut parents: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|parent| parent.starts_with(mount)).map(Path::to_owned).collect();
    parents.reverse();
    parents
}
