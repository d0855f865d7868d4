//! What differs between ways to keep layers: how the directories are made and what a root file system made of them is.
//!
//! | driver | a layer is | a writable layer is |
//! |---|---|---|
//! | `overlay` | a directory of its own files, with overlay's marks for what it deletes | an empty upper directory; the kernel merges |
//! | `erofs` | one file that is mounted | as `overlay` |
//! | `btrfs` | a subvolume with everything up to this layer | a snapshot of the topmost layer's |
//! | `devmapper` | a thinly provisioned device with everything up to this layer | a snapshot of the topmost layer's |
//! | `native` | a directory with everything up to this layer | a copy of the topmost layer's, sharing blocks where the file system can |
//!
//! Drivers of other crates keep files where no directory of the store is: in another process's hands or on block devices.
//!
//! Layers of the first kind are unpacked independently of each other; those of the others one after the other, each on a copy of the one below.

mod btrfs;
mod copy;
mod detect;
mod devmapper;
mod erofs;
mod native;
mod overlay;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;

use crate::{Result, Trash, Usage};
pub use btrfs::BtrfsDriver;
pub use detect::{DRIVERS, choose, try_out};
pub use devmapper::DevmapperDriver;
pub use erofs::ErofsDriver;
pub(crate) use erofs::{IMAGE_FILE, PUT_AWAY};
pub use native::NativeDriver;
pub use overlay::OverlayDriver;

/// One way to keep files. `home` is a directory of the store's that the driver fills; the store makes, renames and deletes it.
pub trait Driver: fmt::Debug + Send + Sync {
    fn name(&self) -> &str;

    /// Whether a layer holds only its own changes. Else it holds the whole tree, and is made on a copy of the one below.
    fn is_layered(&self) -> bool;

    /// Whether a layer is best written as an image file ([`crate::PendingLayer::image_file`]).
    fn writes_images(&self) -> bool {
        false
    }

    /// Where a layer's files are in its home.
    fn files(&self, home: &Path) -> PathBuf {
        home.join("fs")
    }

    /// What stands for a layer among the lowers given to [`Self::make_writable`] and [`Self::rootfs`]: as [`Self::files`] where those are at
    /// hand anyway, else a name below the home. Asking for it costs nothing.
    fn lower(&self, home: &Path) -> PathBuf {
        self.files(home)
    }

    /// Makes the directory a layer is unpacked into, and returns it. `below` is the layer it is on, for drivers that are not layered.
    ///
    /// # Errors
    /// What the kernel says.
    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf>;

    /// Called when a layer's files are complete, before it is put in place.
    ///
    /// # Errors
    /// What the kernel says.
    fn finish_layer(&self, home: &Path) -> Result<()> {
        let _ = home;
        Ok(())
    }

    /// Called when a layer leaves its place: what is held of it is let go.
    fn forget(&self, home: &Path) {
        let _ = home;
    }

    /// Makes the writable layer of a container on top of `lowers` (top to bottom). On the path of every start: a few system calls.
    ///
    /// # Errors
    /// What the kernel says.
    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()>;

    /// The plan of the root file system with that writable layer.
    ///
    /// # Errors
    /// What the kernel says.
    fn rootfs(&self, home: &Path, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs>;

    /// Those of the lowers (top to bottom) that a mount needs.
    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf>;

    /// Turns a writable layer into one that is only read from now on.
    ///
    /// # Errors
    /// What the kernel says.
    fn freeze(&self, home: &Path, trash: &Trash) -> Result<()> {
        trash.put(&home.join("work"))
    }

    /// The tree that a writable layer began as a copy of; nothing for one that holds only changes.
    fn base(&self, rootfs: &OverlayRootfs) -> Option<PathBuf> {
        let _ = rootfs;
        None
    }

    /// Regular files' bytes, and inodes, in the writable layer: of what differs from its base.
    ///
    /// # Errors
    /// What the kernel says.
    fn writable_usage(&self, rootfs: &OverlayRootfs) -> Result<Usage> {
        match &rootfs.upper {
            Some(upper) => usage::usage(upper, self.base(rootfs).as_deref()),
            None => Ok(Usage::default()),
        }
    }

    /// Called on what is about to be deleted file by file: here a driver can do better, or lets go what it keeps elsewhere.
    ///
    /// # Errors
    /// When that cannot be yet (others are based on it): the home stays in the trash, and this is called again later.
    fn destroy(&self, home: &Path) -> Result<()> {
        let _ = home;
        Ok(())
    }
}
