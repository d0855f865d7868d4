//! Mounts as an external snapshotter tells them, carried out detached: nothing appears in the host's mount table.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_rootfs::OverlayRootfs;
use berth_snapshot::{Mount, SnapshotError, rootfs_of_mounts};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::Result;

/// Of options, in an error.
const OPTIONS_CHARS_MAX: usize = 200;

/// The mounts as one plan, when they are an overlay as we would make it or a bound directory; nothing for anything else.
pub(crate) fn plan(mounts: &[Mount]) -> Option<OverlayRootfs> {
    let [mount] = mounts else { return None };
    let is_ours = |option: &String| match option.split_once('=') {
        Some((key, value)) => {
            matches!(key, "lowerdir" | "upperdir" | "workdir")
                || matches!((key, value), ("index" | "metacopy" | "xino", "off") | ("redirect_dir", "off" | "nofollow"))
        }
        None => matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind" | "volatile"),
    };
    let is_known = matches!(mount.kind.as_str(), "overlay" | "bind") && mount.options.iter().all(is_ours);
    rootfs_of_mounts(mounts).ok().filter(|_| is_known)
}

/// A detached mount of what a snapshotter says.
///
/// # Errors
/// `InvalidArgument` for a chain of mounts; what the kernel says.
pub fn mount(mounts: &[Mount]) -> Result<OwnedFd> {
    if let Some(plan) = plan(mounts) {
        let failed = |source: berth_rootfs::OverlayError| refused(mounts, &berth_types::report(&source));
        return plan.mount_detached().map_err(failed);
    }
    match mounts {
        [mount] if mount.kind != "bind" => one(mount).map_err(|errno| refused(mounts, &errno.to_string())),
        _ => Err(SnapshotError::Mounts { why: "a chain of mounts is not supported" }),
    }
}

fn refused(mounts: &[Mount], why: &str) -> SnapshotError {
    let mut shown = String::new();
    for mount in mounts {
        let options: String = mount.options.join(",").chars().take(OPTIONS_CHARS_MAX).collect();
        shown.push_str(&format!("as {} with {options:?}: ", mount.kind));
    }
    let source = mounts.first().map(|mount| PathBuf::from(&mount.source)).unwrap_or_default();
    SnapshotError::io("mount", &source, std::io::Error::other(shown + why))
}

fn one(mount: &Mount) -> std::result::Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", mount.source.as_str())?;
    let mut attributes = MountAttrFlags::empty();
    for option in &mount.options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None if option == "rw" => {}
            None if option == "ro" => {
                attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                fsconfig_set_flag(&context, "ro")?;
            }
            None if option == "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            None if option == "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            None if option == "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            None if option == "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            None if option == "nodiratime" => attributes |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            None if matches!(option.as_str(), "relatime" | "dev" | "suid" | "exec") => {}
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
