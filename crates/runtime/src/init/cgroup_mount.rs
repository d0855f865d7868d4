//! The container's view of its cgroups: one cgroup2 mount, or a tmpfs with one directory per v1 hierarchy.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_cgroup::{Hierarchy, Version};
use berth_rootfs::RootDir;
use berth_rootfs::mounts::{
    MountError, TargetKind, attach, clone_tree, mount_target, new_filesystem, set_attributes, set_read_only,
};
use berth_rootfs::options::MountOptions;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{Failure, InitContext};
use crate::namespaces::Namespace;
use crate::plan::MountPlan;

impl InitContext<'_> {
    pub(super) fn mount_cgroup(&mut self, plan: &MountPlan) -> Result<(), Failure> {
        let view = self.cgroup_view.as_ref().ok_or_else(|| Failure::new("this host has no cgroups", Errno::NODEV))?;
        let root = self.root()?;
        if view.layout.version == Version::V2 {
            let host = view.layout.unified.as_ref().map(|unified| unified.mount.as_path());
            let is_private = self.plan.namespaces.is_private(Namespace::Cgroup);
            let mount = match host.filter(|_| !is_private) {
                Some(host) => shared(host, &plan.options, self.plan.namespaces.is_new(Namespace::User))?,
                None => unified(host, &plan.options)?,
            };
            let target = mount_target(root, &plan.destination, TargetKind::Directory)?;
            return Ok(attach(mount.as_fd(), target.as_fd())?);
        }
        let is_private = self.plan.namespaces.is_private(Namespace::Cgroup);
        let target = mount_target(root, &plan.destination, TargetKind::Directory)?;
        let mut outer =
            MountOptions { data: vec![("mode".to_owned(), Some("755".to_owned()))], ..plan.options.clone() };
        outer.top.set &= !MountAttrFlags::MOUNT_ATTR_RDONLY;
        outer.data.extend(self.plan.mount_label.iter().map(|label| ("context".to_owned(), Some(label.clone()))));
        let tmpfs = new_filesystem("tmpfs", Some(Path::new("tmpfs")), &outer)?;
        attach(tmpfs.as_fd(), target.as_fd())?;
        let inside = RootDir::new(tmpfs);
        for hierarchy in &view.layout.hierarchies {
            let own = hierarchy.controllers.iter().find_map(|name| view.paths.get(name));
            let mount = match own {
                _ if is_private => hierarchy_mount(hierarchy, &plan.options)?,
                Some(path) => bound(path, &plan.options)?,
                None => continue,
            };
            place(&inside, hierarchy, &mount)?;
        }
        if plan.options.top.set.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
            set_read_only(inside.as_fd(), false)?;
        }
        Ok(())
    }
}

/// The whole hierarchy as this cgroup namespace shows it. Where that may not be mounted (a user namespace without a cgroup
/// namespace of its own), the host's, read-only whatever was asked (CVE-2023-25809).
fn unified(host: Option<&Path>, options: &MountOptions) -> Result<OwnedFd, Failure> {
    let plain = MountOptions { data: Vec::new(), ..options.clone() };
    match (new_filesystem("cgroup2", Some(Path::new("cgroup")), &plain), host) {
        (Ok(mount), _) => Ok(mount),
        (Err(error), Some(host)) if matches!(error.errno(), Errno::PERM | Errno::BUSY) => shared(host, options, true),
        (Err(error), _) => Err(error.into()),
    }
}

/// The host's own mount once more. A new one, made in the host's cgroup namespace without its options, would take `nsdelegate` and
/// `memory_recursiveprot` from the whole host: options of cgroup2 belong to the hierarchy, not to a mount (cgroups(7)).
fn shared(host: &Path, options: &MountOptions, read_only: bool) -> Result<OwnedFd, Failure> {
    let mount = clone_tree(host, false)?;
    set_attributes(mount.as_fd(), options)?;
    if read_only {
        set_read_only(mount.as_fd(), true)?;
    }
    Ok(mount)
}

/// The hierarchy's own file system; its root is the root of our cgroup namespace.
fn hierarchy_mount(hierarchy: &Hierarchy, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let mut data = Vec::new();
    for controller in &hierarchy.controllers {
        match controller.strip_prefix("name=") {
            Some(name) => {
                data.push(("none".to_owned(), None));
                data.push(("name".to_owned(), Some(name.to_owned())));
            }
            None => data.push((controller.clone(), None)),
        }
    }
    new_filesystem("cgroup", Some(Path::new("cgroup")), &MountOptions { data, ..options.clone() })
}

/// Without a cgroup namespace: only the container's own directory.
fn bound(path: &Path, options: &MountOptions) -> Result<OwnedFd, Failure> {
    let mount = clone_tree(path, false)?;
    set_attributes(mount.as_fd(), options)?;
    Ok(mount)
}

fn place(inside: &RootDir, hierarchy: &Hierarchy, mount: &OwnedFd) -> Result<(), Failure> {
    let name = hierarchy.mount.file_name().ok_or_else(|| Failure::from(Errno::INVAL))?;
    let target = mount_target(inside, Path::new(name), TargetKind::Directory)?;
    attach(mount.as_fd(), target.as_fd())?;
    for controller in &hierarchy.controllers {
        let alias = controller.strip_prefix("name=").unwrap_or(controller);
        if name != alias {
            rustix::fs::symlinkat(name, inside.as_fd(), alias)?;
        }
    }
    Ok(())
}
