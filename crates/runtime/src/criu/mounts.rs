//! Mounts whose content criu must not save: binds of the host and masks. They get names of ours at the checkpoint, and at the restore
//! the names get sources from config.json alone: nothing in the images or in the container says which host path is bound.
//!
//! A container may have put links in the way since it started (CVE-2026-119101, CVE-2026-115520, CVE-2026-119614): the place a mount is
//! found at is accepted only when the very file or directory that was bound is there.

use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Layout, Version};
use berth_oci::runtime::Spec;
use berth_rootfs::RootDir;
use berth_rootfs::mounts::{MountError, TargetKind, mount_target};
use rustix::fs::{AtFlags, FileType, Stat};

use crate::error::RuntimeError;
use crate::namespaces::{Namespace, Namespaces};
use crate::plan::{MountPlan, MountSource};

/// One such mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct External {
    /// In the images.
    pub(super) name: String,
    /// On the host.
    pub(super) source: PathBuf,
    /// As config.json says.
    pub(super) destination: PathBuf,
}

const NULL: &str = "/dev/null";
const NULL_NAME: &str = "mask";

/// What config.json binds from the host.
pub(super) fn of_spec(spec: &Spec, bundle: &Path) -> Result<Vec<External>, RuntimeError> {
    let mut found = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let plan = MountPlan::new(mount, bundle, index, false)?;
        if let MountSource::Bind { path, .. } = plan.source {
            found.push(External { name: format!("mount-{index}"), source: path, destination: plan.destination });
        }
    }
    Ok(found)
}

/// The container's own directories of the v1 hierarchies, which its view of them binds where it has no cgroup namespace.
pub(super) fn cgroups(spec: &Spec, namespaces: &Namespaces, group: &Cgroup) -> Result<Vec<External>, RuntimeError> {
    let cgroup = |source| RuntimeError::Cgroup { what: "find", source: Box::new(source) };
    let layout = Layout::detect().map_err(cgroup)?;
    if namespaces.is_private(Namespace::Cgroup) || layout.version == Version::V2 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let paths = group.paths();
    for mount in spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("cgroup")) {
        for hierarchy in &layout.hierarchies {
            let own = hierarchy.controllers.iter().find_map(|name| paths.get(name));
            let (Some(source), Some(name)) = (own, hierarchy.mount.file_name()) else { continue };
            let (source, destination) = (source.clone(), mount.destination().join(name));
            found.push(External { name: format!("cgroup-{}", name.display()), source, destination });
        }
    }
    Ok(found)
}

/// Pairs of mount point and name, for the checkpoint of a container with this root.
pub(super) fn found_in(
    root: &RootDir,
    spec: &Spec,
    externals: &[External],
) -> Result<Vec<(String, String)>, RuntimeError> {
    let mut pairs = Vec::new();
    for external in externals {
        let moved = |problem: String| RuntimeError::Spec { field: "mounts", problem };
        let place = root.through_links(&external.destination).map_err(|error| moved(error.to_string()))?;
        let inside = root
            .resolve(&external.destination)
            .ok()
            .and_then(|fd| rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).ok());
        let outside = rustix::fs::stat(&external.source).ok();
        let is_same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        if !matches!((&inside, &outside), (Some(inside), Some(outside)) if is_same(inside, outside)) {
            let (there, from) = (external.destination.display(), external.source.display());
            return Err(moved(format!("what is at {there} now is not {from}: the container changed the way there")));
        }
        pairs.push((place.display().to_string(), external.name.clone()));
    }
    let linux = spec.linux().clone().unwrap_or_default();
    for path in linux.masked_paths().iter().flatten() {
        let Ok(fd) = root.resolve(Path::new(path)) else { continue };
        let is_null = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).is_ok_and(|stat| is_null(&stat));
        if is_null && let Ok(place) = root.through_links(Path::new(path)) {
            pairs.push((place.display().to_string(), NULL_NAME.to_owned()));
        }
    }
    Ok(pairs)
}

fn is_null(stat: &Stat) -> bool {
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3)
}

/// Pairs of name and host path, for a restore.
pub(super) fn sources(externals: &[External]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> =
        externals.iter().map(|external| (external.name.clone(), external.source.display().to_string())).collect();
    pairs.push((NULL_NAME.to_owned(), NULL.to_owned()));
    pairs
}

/// Makes the places that mounts of the spec need in a root file system, or in a bind of the host that covers them, where they are
/// missing.
pub(super) fn make_places(root: &RootDir, spec: &Spec, bundle: &Path) -> Result<(), RuntimeError> {
    let mut covered: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let plan = MountPlan::new(mount, bundle, index, false)?;
        let bound = match &plan.source {
            MountSource::Bind { path, .. } => Some(path.clone()),
            _ => None,
        };
        let kind =
            if bound.as_ref().is_some_and(|path| !path.is_dir()) { TargetKind::File } else { TargetKind::Directory };
        let above = covered.iter().rev().find_map(|(place, source)| {
            plan.destination.strip_prefix(place).ok().map(|below| (below.to_owned(), source.clone()))
        });
        match above {
            None => drop(mount_target(root, &plan.destination, kind)?),
            Some((below, Some(source))) if !below.as_os_str().is_empty() && source.is_dir() => {
                drop(mount_target(&RootDir::open_host(&source).map_err(MountError::from)?, &below, kind)?);
            }
            // Below a file system of the container's own criu restores what there was.
            Some(_) => {}
        }
        covered.push((plan.destination, bound));
    }
    Ok(())
}
