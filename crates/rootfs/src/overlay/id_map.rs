//! Overlay on id-mapped mounts. The overlay itself cannot be id-mapped (EINVAL), so each layer is cloned, mapped and given by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::fs_identity::with_fs_identity;
use berth_sys::mount_attr::{MountAttr, mount_setattr};
use rustix::fs::{Mode, OFlags};

use super::fs_context::Layer;
use super::{Layers, OverlayError, OverlayOptions, OverlayRootfs, clone_tree, plain};

pub(super) fn mount(rootfs: &OverlayRootfs, user_ns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    let lowers = mapped_lowers(rootfs, user_ns)?;
    let pair = match (&rootfs.upper, &rootfs.work) {
        (Some(upper), Some(work)) => Some(MappedPair::open(upper, work, user_ns)?),
        _ => None,
    };
    match (lowers.len(), pair) {
        (0, None) => Err(OverlayError::NoLayer),
        (0, Some(pair)) => clone_mapped(pair.upper, user_ns),
        (1, None) => plain(clone_mapped(&rootfs.lowers[0], user_ns)?, &rootfs.lowers[0], true),
        (_, None) => Layers { lowers, pair: None }.mount(false, OverlayOptions::default()),
        (_, Some(pair)) => pair.mount(lowers, rootfs.is_volatile),
    }
}

/// The writable pair is as it is.
pub(super) fn mount_lowers(rootfs: &OverlayRootfs, user_ns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    let lowers = mapped_lowers(rootfs, user_ns)?;
    let pair = match (&rootfs.upper, &rootfs.work) {
        (Some(upper), Some(work)) => Some((Layer::Path(upper), Layer::Path(work))),
        _ => None,
    };
    match (lowers.len(), pair) {
        (0, _) => rootfs.mount_detached(),
        (1, None) => plain(clone_mapped(&rootfs.lowers[0], user_ns)?, &rootfs.lowers[0], true),
        (_, pair) => Layers { lowers, pair }.mount(rootfs.is_volatile, OverlayOptions::default()),
    }
}

fn mapped_lowers<'p>(rootfs: &'p OverlayRootfs, user_ns: BorrowedFd<'_>) -> Result<Vec<Layer<'p>>, OverlayError> {
    rootfs.lowers.iter().map(|path| Ok(Layer::Fd(clone_mapped(path, user_ns)?, path.as_path()))).collect()
}

fn clone_mapped(path: &Path, user_ns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    let mount = clone_tree(path)?;
    let attr = MountAttr { id_map: Some(user_ns), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), false, &attr).map_err(|source| OverlayError::Directory {
        operation: "map the owners of",
        path: path.to_owned(),
        source,
    })?;
    Ok(mount)
}

/// The kernel wants upper and work on the same mount, so their parent is cloned and mapped once and both are opened in it.
struct MappedPair<'p> {
    /// A clone is dissolved with the descriptor that `open_tree` returned, so this must live until the overlay has its own references.
    parent: OwnedFd,
    upper: &'p Path,
    work: &'p Path,
}

impl<'p> MappedPair<'p> {
    fn open(upper: &'p Path, work: &'p Path, user_ns: BorrowedFd<'_>) -> Result<Self, OverlayError> {
        let parent = match (upper.parent(), work.parent()) {
            (Some(upper), Some(work)) if upper == work => upper,
            _ => return Err(OverlayError::WritablePair),
        };
        Ok(Self { parent: clone_mapped(parent, user_ns)?, upper, work })
    }

    fn child(&self, path: &'p Path) -> Result<Layer<'p>, OverlayError> {
        let name = path.file_name().ok_or(OverlayError::WritablePair)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.parent, name, flags, Mode::empty())
            .map_err(|source| OverlayError::Directory { operation: "open directory", path: path.to_owned(), source })?;
        Ok(Layer::Fd(fd, path))
    }

    /// An overlay makes work files and whiteouts as the one who mounted it, and on a mapped mount only mapped owners can make anything
    /// (otherwise the kernel falls back to read-only). So the user namespace's root mounts, which is who owns the pair's parent here.
    fn mount(&self, lowers: Vec<Layer<'_>>, is_volatile: bool) -> Result<OwnedFd, OverlayError> {
        let failed = |operation, source| {
            let path = self.upper.parent().unwrap_or(self.upper).to_owned();
            OverlayError::Directory { operation, path, source }
        };
        let owner = rustix::fs::fstat(&self.parent).map_err(|source| failed("stat", source))?;
        let layers = Layers { lowers, pair: Some((self.child(self.upper)?, self.child(self.work)?)) };
        with_fs_identity(owner.st_uid, owner.st_gid, || layers.mount(is_volatile, OverlayOptions::default()))
            .map_err(|source| failed("act as the mapped owner of", source))?
    }
}
