//! Overlay file systems as detached mounts: never in the host's mount table, gone with the last descriptor.
//!
//! A plan ([`OverlayRootfs`]) is plain data that can be stored and sent; mounting it is one walk over the new mount API. What this module
//! does not do: attach the mount anywhere, or make or delete layer directories.
//!
//! Invariants:
//! - Upper directories made by these mounts hold whole files and no references to lower names: `metacopy=off`, `redirect_dir=nofollow` (which
//!   also ignores such references where somebody smuggled them into a layer) and `index=off`. The packer and the differ rely on it.
//! - A volatile overlay is for writable layers that no reboot survives: see [`OverlayRootfs::is_volatile`].

mod fs_context;
mod id_map;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount_attr::{MountAttr, mount_setattr};
use berth_types::{Classify, ErrorClass};
use fs_context::{FsContext, Layer};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

/// Layer directories top to bottom, plus the writable pair. Absolute paths of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OverlayRootfs {
    pub lowers: Vec<PathBuf>,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
    /// Skip syncs on unmount (kernel 5.10): throw-away containers only. Whoever sets it must drop the writable pair after a crash of the host.
    pub is_volatile: bool,
}

/// How to mount, where the default is not wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Marks in `user.overlay.*` instead of `trusted.overlay.*`: a mounter without CAP_SYS_ADMIN in the first user namespace (kernel 5.11).
    pub has_user_xattrs: bool,
    pub is_read_only: bool,
}

/// An overlay could not be mounted: what was tried on which directory, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    #[error("cannot open an overlay file system context")]
    Context { source: Errno },
    #[error("the kernel does not take the overlay option {option}={value}{kernel_log}")]
    Option { option: &'static str, value: String, kernel_log: String, source: Errno },
    #[error("cannot mount an overlay of {layers} layers{kernel_log}")]
    Mount { layers: usize, kernel_log: String, source: Errno },
    #[error("cannot {operation} {}", .path.display())]
    Directory { operation: &'static str, path: PathBuf, source: Errno },
    #[error("{layers} layers do not fit into one mount option, and this kernel cannot take them one by one")]
    TooManyLayers { layers: usize },
    #[error("an overlay needs at least one layer")]
    NoLayer,
    #[error("an overlay needs upper and work directory together, in one parent directory")]
    WritablePair,
}

impl Classify for OverlayError {
    fn class(&self) -> ErrorClass {
        let source = match self {
            Self::Context { source }
            | Self::Option { source, .. }
            | Self::Mount { source, .. }
            | Self::Directory { source, .. } => *source,
            Self::TooManyLayers { .. } => return ErrorClass::Unimplemented,
            Self::NoLayer | Self::WritablePair => return ErrorClass::InvalidArgument,
        };
        match source {
            Errno::NOENT | Errno::NOTDIR => ErrorClass::NotFound,
            Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorClass::PermissionDenied,
            Errno::NODEV | Errno::NOSYS => ErrorClass::Unimplemented,
            Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::MFILE | Errno::NFILE => ErrorClass::ResourceExhausted,
            Errno::BUSY => ErrorClass::FailedPrecondition,
            Errno::INVAL | Errno::LOOP => ErrorClass::InvalidArgument,
            _ => ErrorClass::Internal,
        }
    }
}

impl OverlayRootfs {
    /// Mounts it detached (`fsopen`, one `lowerdir+` per layer where the kernel has it); any number of layers.
    ///
    /// # Errors
    /// `NotFound` for a missing directory, `InvalidArgument` for layers that contain each other; with the kernel's own words where it has some.
    pub fn mount_detached(&self) -> Result<OwnedFd, OverlayError> {
        self.mount_detached_with(OverlayOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::mount_detached`].
    pub fn mount_detached_with(&self, options: OverlayOptions) -> Result<OwnedFd, OverlayError> {
        let pair = self.writable_pair()?;
        self.forget_volatile_mark();
        let mut lowers = self.lowers.iter().map(|path| Layer::Path(path));
        let layers = match (lowers.len(), pair) {
            (0, None) => return Err(OverlayError::NoLayer),
            (0, Some((upper, _))) => return plain(clone_tree(upper)?, upper, options.is_read_only),
            (1, None) => return plain(clone_tree(&self.lowers[0])?, &self.lowers[0], true),
            (_, pair) => Layers {
                lowers: lowers.by_ref().collect(),
                pair: pair.map(|(upper, work)| (Layer::Path(upper), Layer::Path(work))),
            },
        };
        layers.mount(self.is_volatile, options)
    }

    /// Mounts it for a container with a user namespace: what is stored as owned by 0 appears as owned by the host id that `user_ns` maps 0 to,
    /// in the layers and in the writable pair, with nothing chowned (id-mapped mounts; overlay on them since kernel 5.19).
    ///
    /// # Errors
    /// As [`Self::mount_detached`]; `WritablePair` when upper and work are not in one parent directory.
    pub fn mount_detached_idmapped(&self, user_ns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
        self.writable_pair()?;
        self.forget_volatile_mark();
        id_map::mount(self, user_ns)
    }

    /// The same with the writable pair left as it is: its files have the host's ids of the container's users, as containerd's overlay snapshotter
    /// makes it for id-mapped snapshots.
    ///
    /// # Errors
    /// As [`Self::mount_detached`].
    pub fn mount_detached_with_mapped_lowers(&self, user_ns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
        self.writable_pair()?;
        self.forget_volatile_mark();
        id_map::mount_lowers(self, user_ns)
    }

    fn writable_pair(&self) -> Result<Option<(&Path, &Path)>, OverlayError> {
        match (&self.upper, &self.work) {
            (None, None) => Ok(None),
            (Some(upper), Some(work)) => Ok(Some((upper, work))),
            _ => Err(OverlayError::WritablePair),
        }
    }

    /// A volatile overlay leaves a mark in its work directory that forbids mounting the pair again, because a crash of the host may have lost
    /// data. Throw-away pairs do not outlive a boot (see `is_volatile`), so here the mark only says that the container is started again.
    fn forget_volatile_mark(&self) {
        if let (true, Some(work)) = (self.is_volatile, &self.work) {
            // Usually there is none; one that stays makes the mount fail.
            let mark = work.join("work/incompat/volatile");
            if rustix::fs::unlinkat(CWD, mark.join("dirty"), AtFlags::empty()).is_ok() {
                rustix::fs::unlinkat(CWD, &mark, AtFlags::REMOVEDIR).ok();
            }
        }
    }
}

/// Layers on their way into a file system context.
struct Layers<'p> {
    lowers: Vec<Layer<'p>>,
    pair: Option<(Layer<'p>, Layer<'p>)>,
}

impl Layers<'_> {
    fn mount(&self, is_volatile: bool, options: OverlayOptions) -> Result<OwnedFd, OverlayError> {
        match self.mount_one_by_one(is_volatile, options) {
            // Before Linux 6.7 there is no `lowerdir+`; where the reason is another one it comes back the same way.
            Err(
                OverlayError::Option { source: Errno::INVAL, .. } | OverlayError::Mount { source: Errno::INVAL, .. },
            ) => self.mount_as_list(is_volatile, options),
            mounted_or_failed => mounted_or_failed,
        }
    }

    fn mount_one_by_one(&self, is_volatile: bool, options: OverlayOptions) -> Result<OwnedFd, OverlayError> {
        let context = FsContext::open()?;
        for lower in &self.lowers {
            context.set_layer("lowerdir+", lower)?;
        }
        self.finish(&context, is_volatile, options)
    }

    fn mount_as_list(&self, is_volatile: bool, options: OverlayOptions) -> Result<OwnedFd, OverlayError> {
        let context = FsContext::open()?;
        let _opened = context.set_lower_list(&self.lowers)?;
        self.finish(&context, is_volatile, options)
    }

    fn finish(&self, context: &FsContext, is_volatile: bool, options: OverlayOptions) -> Result<OwnedFd, OverlayError> {
        if let Some((upper, work)) = &self.pair {
            context.set_layer("upperdir", upper)?;
            context.set_layer("workdir", work)?;
            if is_volatile {
                context.set_flag("volatile")?;
            }
        }
        context.set("redirect_dir", "nofollow")?;
        context.set("metacopy", "off")?;
        context.set("index", "off")?;
        if options.has_user_xattrs {
            context.set_flag("userxattr")?;
        }
        let attributes = if options.is_read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        context.mount(self.lowers.len(), attributes)
    }
}

/// A detached copy of the mount a directory is on, with that directory as its root. Mounts below it stay behind.
fn clone_tree(path: &Path) -> Result<OwnedFd, OverlayError> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(|source| {
        OverlayError::Directory { operation: "clone the mount of layer directory", path: path.to_owned(), source }
    })
}

/// One directory alone needs (and gets) no overlay.
fn plain(mount: OwnedFd, path: &Path, is_read_only: bool) -> Result<OwnedFd, OverlayError> {
    if is_read_only {
        let attr = MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount_setattr(mount.as_fd(), false, &attr).map_err(|source| OverlayError::Directory {
            operation: "make read-only the mount of",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(mount)
}

#[cfg(test)]
mod tests;
