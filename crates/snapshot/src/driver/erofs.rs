//! Each layer is one EROFS file, mounted straight from the file (Linux 6.12) and stacked by overlay: nothing to create or delete per file.
//!
//! A layer's "directory" is `/proc/<our pid>/fd/<n>/.`, the root of a detached mount that this process holds; who mounts an overlay of it gets a
//! mount of its own from the kernel, which lives on when this process dies. So all containers share one mount of a layer, and its cached pages.
//! Committed snapshots that were written by hand, and layers whose names and attributes would take too much memory, stay directories.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_rootfs::OverlayRootfs;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::{Driver, Files, OverlayDriver, Seal, measure};
use crate::{Result, SnapshotError};

/// In a layer's home.
pub(crate) const IMAGE_FILE: &str = "layer.erofs";
/// In a layer's home: the directory its image was made of, until it is deleted.
pub(crate) const PUT_AWAY: &str = "packed";

/// See the module.
#[derive(Debug, Default)]
pub struct ErofsDriver {
    /// By the home's name, which does not change while it is a layer.
    mounts: Mutex<HashMap<PathBuf, Arc<OwnedFd>>>,
    /// Of damaged layers, which are few.
    retired: Mutex<Vec<Arc<OwnedFd>>>,
    /// Of removed layers, until [`Driver::let_go`].
    forgotten: Mutex<Vec<Arc<OwnedFd>>>,
}

impl ErofsDriver {
    /// The root of the home's mount, made when it is first asked for.
    fn mounted(&self, home: &Path) -> std::result::Result<Files, rustix::io::Errno> {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.get(home) {
            return Ok(Files::of_mount(mount));
        }
        let mount = Arc::new(mount(&home.join(IMAGE_FILE))?);
        let files = Files::of_mount(&mount);
        mounts.insert(home.to_owned(), mount);
        Ok(files)
    }
}

/// A detached read-only mount of an image file.
fn mount(image: &Path) -> std::result::Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", image)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

impl Driver for ErofsDriver {
    fn name(&self) -> &str {
        "erofs"
    }

    fn is_layered(&self) -> bool {
        true
    }

    fn writes_images(&self) -> bool {
        true
    }

    fn files(&self, home: &Path) -> Files {
        let directory = Files::from(home.join("fs"));
        if !home.join(IMAGE_FILE).exists() {
            return directory;
        }
        // What cannot be mounted has no files; whoever looks for them is told that they are not there.
        self.mounted(home).unwrap_or(directory)
    }

    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf> {
        OverlayDriver.make_layer(home, below)
    }

    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        OverlayDriver.make_writable(home, lowers)
    }

    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        OverlayDriver.visible(lowers)
    }

    fn rootfs(&self, home: &Path, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs> {
        OverlayDriver.rootfs(home, lowers, is_throw_away)
    }

    /// A layer that was made as a directory becomes an image, unless it has so many files that it must stay one.
    fn finish_layer(&self, home: &Path) -> Result<()> {
        let (directory, image) = (home.join("fs"), home.join(IMAGE_FILE));
        if image.exists() {
            return Ok(());
        }
        let draft = home.join("image-new");
        let packed = std::fs::File::create(&draft).and_then(|file| crate::erofs::pack::pack(&directory, file));
        if packed.as_ref().is_err_and(crate::erofs::is_out_of_memory) {
            return std::fs::remove_file(&draft).map_err(|source| SnapshotError::io("remove", &draft, source));
        }
        packed.map_err(|source| SnapshotError::io("write the image of", &directory, source))?;
        std::fs::rename(&draft, &image).map_err(|source| SnapshotError::io("name", &image, source))?;
        std::fs::rename(&directory, home.join(PUT_AWAY))
            .map_err(|source| SnapshotError::io("put away", &directory, source))
    }

    fn layer_disk_bytes(&self, home: &Path) -> Result<Option<u64>> {
        Ok(Some(measure(home, None)?.disk_bytes))
    }

    fn seal(&self, home: &Path) -> Result<Seal> {
        let image = home.join(IMAGE_FILE);
        match std::fs::symlink_metadata(&image) {
            Ok(found) => Ok(Seal { image_bytes: Some(found.len()), root_mtime: None }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => OverlayDriver.seal(home),
            Err(source) => Err(SnapshotError::io("stat", &image, source)),
        }
    }

    /// A mount that is held tells nothing about a file that was cut short since; the length does. A damaged superblock refuses to be mounted.
    fn damage(&self, home: &Path, seal: &Seal) -> Option<String> {
        let found = match std::fs::symlink_metadata(home.join(IMAGE_FILE)) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let is_image = seal.image_bytes.is_some();
                return if is_image { Some("its image is gone".to_owned()) } else { OverlayDriver.damage(home, seal) };
            }
            Err(error) => return Some(format!("its image cannot be looked at: {error}")),
        };
        match seal.image_bytes {
            Some(sealed) if sealed != found.len() => {
                Some(format!("its image has {} bytes instead of {sealed}", found.len()))
            }
            _ => self.mounted(home).err().map(|errno| format!("its image cannot be mounted: {errno}")),
        }
    }

    /// The descriptor stays taken until the daemon ends: its number is in plans of starts under way.
    fn retire(&self, home: &Path) {
        let retired = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).remove(home);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).extend(retired);
    }

    /// The kernel takes milliseconds to unmount what has thousands of files in its caches.
    fn forget(&self, home: &Path) {
        let forgotten = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).remove(home);
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).extend(forgotten);
    }

    fn let_go(&self) {
        let forgotten = std::mem::take(&mut *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner));
        drop(forgotten);
    }
}
