//! Every layer is a whole tree, a writable layer is a copy of one. Needs nothing of the kernel; costs a copy per layer and container, of which
//! file systems that share blocks (btrfs, xfs, bcachefs: `FICLONE`) make little.

use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use rustix::fs::Mode;

use super::overlay::make_dir;
use super::{Driver, Files, TreeSize, copy, measure};
use crate::{Result, SnapshotError};

/// In a home: the path of the tree the files began as a copy of.
const BASE_FILE: &str = "base";

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct NativeDriver;

impl Driver for NativeDriver {
    fn name(&self) -> &str {
        "native"
    }

    fn is_layered(&self) -> bool {
        false
    }

    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf> {
        let files = home.join("fs");
        make_dir(&files, Mode::from_raw_mode(0o755))?;
        if let Some(below) = below {
            copy::copy_tree(below, &files)?;
        }
        Ok(files)
    }

    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        self.make_layer(home, lowers.first().map(PathBuf::as_path))?;
        note_base(home, lowers)
    }

    fn layer_disk_bytes(&self, home: &Path) -> Result<Option<u64>> {
        Ok(Some(measure(home, None)?.disk_bytes))
    }

    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        first(lowers)
    }

    fn rootfs(&self, home: &Path, _lowers: Vec<PathBuf>, _is_throw_away: bool) -> Result<OverlayRootfs> {
        Ok(whole_tree(home.join("fs"), home))
    }

    /// Only what differs is the container's own; on the disk all of it is a copy. (Where blocks are shared `du` counts them twice, too.)
    fn writable_tree(&self, rootfs: &OverlayRootfs) -> Result<TreeSize> {
        let Some(upper) = &rootfs.upper else { return Ok(TreeSize::default()) };
        let own = measure(upper, self.base(rootfs).as_deref())?;
        Ok(TreeSize { disk_bytes: measure(upper, None)?.disk_bytes, ..own })
    }

    fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        noted_base(rootfs).map(Files::from)
    }
}

/// A root file system that is one directory: bound, not merged.
pub(super) fn whole_tree(files: PathBuf, home: &Path) -> OverlayRootfs {
    OverlayRootfs { lowers: Vec::new(), upper: Some(files), work: Some(home.join("work")), is_volatile: false }
}

pub(super) fn first(mut lowers: Vec<PathBuf>) -> Vec<PathBuf> {
    lowers.truncate(1);
    lowers
}

pub(super) fn note_base(home: &Path, lowers: &[PathBuf]) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(base) = lowers.first() else { return Ok(()) };
    let path = home.join(BASE_FILE);
    std::fs::write(&path, base.as_os_str().as_bytes()).map_err(|source| SnapshotError::io("write", &path, source))
}

pub(super) fn noted_base(rootfs: &OverlayRootfs) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let home = rootfs.upper.as_ref()?.parent()?;
    let bytes = std::fs::read(home.join(BASE_FILE)).ok()?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}
