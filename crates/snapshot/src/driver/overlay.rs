//! Layers are directories, a root file system is an overlay of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};

use super::Driver;
use crate::{Result, SnapshotError};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct OverlayDriver;

const OPAQUE: &str = "trusted.overlay.opaque";

impl Driver for OverlayDriver {
    fn name(&self) -> &str {
        "overlay"
    }

    fn is_layered(&self) -> bool {
        true
    }

    fn maps_ids(&self) -> bool {
        crate::remap::kernel_maps_overlays()
    }

    fn make_layer(&self, home: &Path, _below: Option<&Path>) -> Result<PathBuf> {
        let files = home.join("fs");
        make_dir(&files, Mode::from_raw_mode(0o755))?;
        Ok(files)
    }

    /// The upper directory is the merged root as the container sees it, so it takes owner, mode and time of the uppermost layer's.
    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        let (upper, work) = (home.join("fs"), home.join("work"));
        let top = match lowers.first() {
            Some(top) => Some(fs::metadata(top).map_err(|source| SnapshotError::io("stat layer", top, source))?),
            None => None,
        };
        let mode = Mode::from_raw_mode(top.as_ref().map_or(0o755, |top| top.mode() & 0o7777));
        make_dir(&upper, mode)?;
        make_dir(&work, Mode::RWXU)?;
        if let Some(top) = top.filter(|top| top.uid() != 0 || top.gid() != 0) {
            let (uid, gid) = (Uid::from_raw(top.uid()), Gid::from_raw(top.gid()));
            rustix::fs::chownat(CWD, &upper, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| SnapshotError::io("change the owner of", &upper, errno.into()))?;
        }
        // The process's mask, and the change of owner, take bits away.
        rustix::fs::chmodat(CWD, &upper, mode, AtFlags::empty())
            .map_err(|errno| SnapshotError::io("change the mode of", &upper, errno.into()))
    }

    fn layer_disk_bytes(&self, home: &Path) -> Result<Option<u64>> {
        Ok(Some(super::measure(home, None)?.disk_bytes))
    }

    /// A layer whose root is opaque hides all layers below. The kernel reads the attribute on every directory but the root, so the
    /// hidden layers are left out here.
    fn visible(&self, mut lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        if let Some(last) = lowers.iter().position(|lower| is_opaque(lower)) {
            lowers.truncate(last + 1);
        }
        lowers
    }

    fn rootfs(&self, home: &Path, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs> {
        Ok(OverlayRootfs {
            lowers: self.visible(lowers),
            upper: Some(home.join("fs")),
            work: Some(home.join("work")),
            is_volatile: is_throw_away,
        })
    }
}

fn is_opaque(layer: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(layer, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

pub(super) fn make_dir(path: &Path, mode: Mode) -> Result<()> {
    rustix::fs::mkdir(path, mode).map_err(|errno| SnapshotError::io("create", path, errno.into()))
}
