//! Root file systems for runtimes that want a path. They are mounted in a mount namespace of the shim's own, which the runtime is born
//! into: the host's mount table never changes, and what a shim mounted goes with it, however it ends.
//!
//! Mounts made on the host later are seen here (the copy is a slave of the host's), ours are not seen there.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_rootfs::{OverlayRootfs, RootDir};
use berth_runtime::LayerOwners;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use crate::oci::CommandError;

/// Whether this process has left the host's mount namespace.
#[derive(Debug, Default)]
pub(crate) struct PrivateMounts {
    is_entered: AtomicBool,
}

impl PrivateMounts {
    /// The shim has one thread, so all of it goes.
    fn enter(&self) -> rustix::io::Result<()> {
        if !self.is_entered.load(Ordering::Relaxed) {
            berth_sys::namespace::unshare_namespaces(UnshareFlags::NEWNS)?;
            rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
            self.is_entered.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Mounts the container's root at a directory, which is made if need be.
    pub(crate) fn mount(
        &self,
        rootfs: &OverlayRootfs,
        owners: &LayerOwners,
        at: &Path,
    ) -> Result<RootDir, CommandError> {
        let failed = |source: io::Error| CommandError::Mount { source: source.into() };
        self.enter().map_err(|errno| failed(errno.into()))?;
        match std::fs::create_dir(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::open(at, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let mount = owners.mount(rootfs).map_err(|error| CommandError::Mount { source: error.into() })?;
        berth_rootfs::mounts::attach(mount.as_fd(), target.as_fd()).map_err(|errno| failed(errno.into()))?;
        Ok(RootDir::new(mount))
    }

    /// Takes it off again. Nothing is ever unmounted on the host.
    pub(crate) fn unmount(&self, at: &Path) {
        if self.is_entered.load(Ordering::Relaxed) {
            rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
    }
}
