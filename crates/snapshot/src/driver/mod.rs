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
mod held;
mod native;
mod overlay;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;

use crate::{Result, SnapshotError, Trash};
pub use btrfs::BtrfsDriver;
pub use detect::{DRIVERS, choose, try_out};
pub use devmapper::DevmapperDriver;
pub use erofs::ErofsDriver;
pub(crate) use erofs::{IMAGE_FILE, PUT_AWAY};
pub use held::Files;
pub use native::NativeDriver;
pub use overlay::OverlayDriver;
pub use usage::TreeSize;
pub(crate) use usage::measure;

/// Cheap facts of a complete layer, which never changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seal {
    /// Length of the image file, for drivers that write one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
    /// Modification time of the top directory, seconds and nanoseconds: another one means that names came or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mtime: Option<(i64, u64)>,
}

pub(super) fn directory_damage(files: &Path, seal: &Seal) -> Option<String> {
    let stat = match rustix::fs::lstat(files) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Some("its files are gone".to_owned()),
        Err(errno) => return Some(format!("its files cannot be looked at: {errno}")),
    };
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Some("something else is in its directory's place".to_owned());
    }
    let sealed = seal.root_mtime?;
    (sealed != (stat.st_mtime, stat.st_mtime_nsec)).then(|| "names in it came or went".to_owned())
}

/// One way to keep files. `home` is a directory of the store's that the driver fills; the store makes, renames and deletes it.
pub trait Driver: fmt::Debug + Send + Sync {
    fn name(&self) -> &str;

    /// Called when a store is opened, before anything of it is in use: puts right what a crash left where no file of the store's is. `root` is the
    /// store's, with its homes.
    ///
    /// # Errors
    /// What the kernel says.
    fn recover(&self, root: &Path) -> Result<()> {
        let _ = root;
        Ok(())
    }

    /// Whether a layer holds only its own changes. Else it holds the whole tree, and is made on a copy of the one below.
    fn is_layered(&self) -> bool;

    /// Whether its root file systems are overlays whose layers can be mapped to the owners of a user namespace here (containerd's `remap-ids`),
    /// also by clients that mount themselves: containerd's want layers whose paths have a directory in common, which descriptors have not.
    fn maps_ids(&self) -> bool {
        false
    }

    /// Whether a layer is best written as an image file ([`crate::PendingLayer::image_file`]).
    fn writes_images(&self) -> bool {
        false
    }

    /// Where a layer's files are in its home.
    fn files(&self, home: &Path) -> Files {
        home.join("fs").into()
    }

    /// What stands for a layer among the lowers given to [`Self::make_writable`] and [`Self::rootfs`]: as [`Self::files`] where those are at
    /// hand anyway, else a name below the home. Asking for it costs nothing. It holds as long as the layer is in its home, and while it is aside.
    fn lower(&self, home: &Path) -> PathBuf {
        self.files(home).to_path_buf()
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

    /// Called when a layer leaves its place: what is held of it is let go, or put aside when that takes long.
    fn forget(&self, home: &Path) {
        let _ = home;
    }

    /// Called before the trash is emptied: what was put aside is let go.
    fn let_go(&self) {}

    /// Called when a layer that may be in use left its home to be made again: a path given out for it never comes to mean another layer. What is
    /// held of it is let go with it ([`Self::destroy`]).
    fn retire(&self, home: &Path) {
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
    fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        let _ = rootfs;
        None
    }

    /// What the writable layer holds: of what differs from its base.
    ///
    /// # Errors
    /// What the kernel says.
    fn writable_tree(&self, rootfs: &OverlayRootfs) -> Result<TreeSize> {
        match &rootfs.upper {
            Some(upper) => measure(upper, self.base(rootfs).as_deref()),
            None => Ok(TreeSize::default()),
        }
    }

    /// Bytes on the disk that go with this layer and no other; nothing where layers share blocks and that cannot be told.
    ///
    /// # Errors
    /// What the kernel says.
    fn layer_disk_bytes(&self, home: &Path) -> Result<Option<u64>> {
        let _ = home;
        Ok(None)
    }

    /// Why a complete layer's files cannot be what was written: they are gone or cut short. Asked before every use, so a call or two; what
    /// only reading everything tells is left to fsck.
    fn damage(&self, home: &Path, seal: &Seal) -> Option<String> {
        directory_damage(&home.join("fs"), seal)
    }

    /// What to hold a layer's files against later, taken when they are complete.
    ///
    /// # Errors
    /// What the kernel says.
    fn seal(&self, home: &Path) -> Result<Seal> {
        let files = home.join("fs");
        match rustix::fs::lstat(&files) {
            Ok(stat) => Ok(Seal { image_bytes: None, root_mtime: Some((stat.st_mtime, stat.st_mtime_nsec)) }),
            // The driver keeps its files elsewhere.
            Err(rustix::io::Errno::NOENT) => Ok(Seal::default()),
            Err(errno) => Err(SnapshotError::io("stat", &files, errno.into())),
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
