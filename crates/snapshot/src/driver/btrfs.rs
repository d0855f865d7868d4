//! Every layer is a subvolume with the whole tree, a writable layer is a snapshot of one: nothing is copied, blocks are shared until they change.

use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use berth_sys::btrfs;

use super::native::{first, note_base, noted_base, whole_tree};
use super::usage::open;
use super::{Driver, Files};
use crate::{Result, SnapshotError};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct BtrfsDriver;

impl Driver for BtrfsDriver {
    fn name(&self) -> &str {
        "btrfs"
    }

    fn is_layered(&self) -> bool {
        false
    }

    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf> {
        let files = home.join("fs");
        let directory = open(home)?;
        let name = c"fs";
        let made = match below {
            Some(below) => btrfs::snapshot(&directory, name, open(below)?),
            None => btrfs::create_subvolume(&directory, name).and_then(|()| {
                rustix::fs::chmodat(
                    &directory,
                    name,
                    rustix::fs::Mode::from_raw_mode(0o755),
                    rustix::fs::AtFlags::empty(),
                )
            }),
        };
        made.map_err(|errno| SnapshotError::io("make the subvolume", &files, errno.into()))?;
        Ok(files)
    }

    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        self.make_layer(home, lowers.first().map(PathBuf::as_path))?;
        note_base(home, lowers)
    }

    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        first(lowers)
    }

    fn rootfs(&self, home: &Path, _lowers: Vec<PathBuf>, _is_throw_away: bool) -> Result<OverlayRootfs> {
        Ok(whole_tree(home.join("fs"), home))
    }

    fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        noted_base(rootfs).map(Files::from)
    }

    /// One call instead of one per file. Where it fails (a container made a subvolume inside) the files are deleted one by one.
    fn destroy(&self, home: &Path) -> Result<()> {
        if let Ok(directory) = open(home) {
            btrfs::destroy(&directory, c"fs").ok();
        }
        Ok(())
    }
}
