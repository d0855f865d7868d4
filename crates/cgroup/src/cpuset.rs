//! v1 cpusets: a new directory has no processors and no memory nodes, and takes no process until it has both.
//!
//! Values come from the nearest ancestor that has some. In parents that we make, `cgroup.clone_children` lets the kernel do it for
//! every later child, so a container costs one read here.

use std::path::Path;

use rustix::io::Errno;

use crate::error::CgroupError;
use crate::file::Directory;

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

/// Fills a directory from its ancestors where it is empty.
pub(crate) fn inherit(mount: &Path, directory: &Directory) -> Result<(), CgroupError> {
    for file in [CPUS, MEMS] {
        fill(mount, directory, file)?;
    }
    Ok(())
}

/// Prepares a parent directory that we just made.
pub(crate) fn prepare_parent(mount: &Path, path: &Path) -> Result<(), CgroupError> {
    let directory =
        Directory::open(path.to_owned()).map_err(|source| CgroupError::Open { path: path.to_owned(), source })?;
    inherit(mount, &directory)?;
    write(&directory, "cgroup.clone_children", "1")
}

/// The value in force, written down where it was missing.
fn fill(mount: &Path, directory: &Directory, file: &'static str) -> Result<String, CgroupError> {
    let own = directory.read(file)?;
    let own = own.trim();
    if !own.is_empty() || directory.path == mount {
        return Ok(own.to_owned());
    }
    let parent = directory.path.parent().unwrap_or(mount).to_owned();
    let parent = Directory::open(parent.clone()).map_err(|source| CgroupError::Open { path: parent, source })?;
    let value = fill(mount, &parent, file)?;
    write(directory, file, &value)?;
    Ok(value)
}

fn write(directory: &Directory, file: &'static str, value: &str) -> Result<(), CgroupError> {
    directory.write(file, value).map_err(|source: Errno| CgroupError::Write {
        limit: "cpuset of a new group",
        file: directory.file(file),
        value: value.to_owned(),
        source,
    })
}
