//! Host mounts as descriptors: the root file system and the sources of binds, cloned by the caller or, for an ordinary user, by init.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_rootfs::mounts::{MountError, clone_tree, clone_tree_in, set_attributes};
use berth_sys::mount_attr::{MountAttr, mount_setattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use crate::plan::{MountPlan, MountSource};

/// Why a source could not be cloned.
#[derive(Debug)]
pub(crate) enum SourceError {
    Clone(MountError),
    Change(&'static str, Errno),
    /// See [`MountPlan::takes_locked`].
    Locked {
        source: PathBuf,
        destination: PathBuf,
    },
}

/// The root file system, with what is mounted in it.
pub(crate) fn clone_rootfs(path: &Path, is_slave: bool) -> Result<OwnedFd, SourceError> {
    let mount = clone_tree(path, true).map_err(SourceError::Clone)?;
    let propagation = if is_slave { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    let change = MountAttr { propagation, ..MountAttr::default() };
    let failed = |errno| SourceError::Change("cannot isolate it", errno);
    mount_setattr(mount.as_fd(), true, &change).map_err(failed)?;
    Ok(mount)
}

/// The source of a bind; `user_ns` carries its mapping where it has one. `None` for a mount that is no bind.
pub(crate) fn clone_bind(plan: &MountPlan, user_ns: Option<&OwnedFd>) -> Result<Option<OwnedFd>, SourceError> {
    let MountPlan { source: MountSource::Bind { path, recursive, .. }, options, .. } = plan else { return Ok(None) };
    let mount = clone_bind_source(path, *recursive).map_err(SourceError::Clone)?;
    let failed = |errno| SourceError::Change("cannot set its attributes", errno);
    if options.propagation.is_empty() {
        // As a copy made in the container's own mount namespace would be: it hears of the host's mounts, and never tells.
        let slave = MountAttr { propagation: MountPropagationFlags::DOWNSTREAM, ..MountAttr::default() };
        mount_setattr(mount.as_fd(), true, &slave).map_err(failed)?;
    }
    if plan.takes_locked(mount.as_fd()).map_err(failed)? {
        return Err(SourceError::Locked { source: path.clone(), destination: plan.destination.clone() });
    }
    if plan.is_id_mapped() {
        map_ids(plan, &mount, user_ns)?;
    }
    set_attributes(mount.as_fd(), &plan.options_of_bind()).map_err(failed)?;
    Ok(Some(mount))
}

/// Maps the ids of a detached mount as a user namespace does.
pub(crate) fn map_ids(plan: &MountPlan, mount: &OwnedFd, user_ns: Option<&OwnedFd>) -> Result<(), SourceError> {
    let failed = |errno| SourceError::Change("cannot map its ids", errno);
    let user_ns = user_ns.ok_or(failed(Errno::INVAL))?;
    let change = MountAttr { id_map: Some(user_ns.as_fd()), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), plan.options.id_map.unwrap_or(false), &change).map_err(failed)
}

/// Puts a source into its slot.
pub(crate) fn keep(sources: &mut Vec<Option<OwnedFd>>, slot: usize, mount: Option<OwnedFd>) {
    if sources.len() <= slot {
        sources.resize_with(slot + 1, || None);
    }
    if let Some(place) = sources.get_mut(slot) {
        *place = mount;
    }
}

/// A path below `/proc/<pid>/root` is a mount of that process's namespace, which cannot be cloned from outside of it.
fn clone_bind_source(path: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    let foreign = path.strip_prefix("/proc").ok().and_then(|rest| {
        let mut parts = rest.components();
        let pid = parts.next()?.as_os_str().to_str()?.parse::<u32>().ok()?;
        let is_root = parts.next()?.as_os_str() == "root";
        is_root.then(|| (pid, Path::new("/").join(parts.as_path())))
    });
    let Some((pid, inner)) = foreign else { return clone_tree(path, recursive) };
    let namespace = format!("/proc/{pid}/ns/mnt");
    let opened = rustix::fs::open(&namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|source| MountError::Kernel {
        what: "open the mount namespace of",
        object: path.to_owned(),
        source,
    })?;
    clone_tree_in(opened.as_fd(), &inner, recursive)
}
