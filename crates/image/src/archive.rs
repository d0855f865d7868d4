//! `cp` and `export`: tar streams from and into a root that may be hostile (a running container's `/proc/<pid>/root`, or a detached overlay).
//! SEAM (stub).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use berth_rootfs::RootDir;
use berth_types::Timestamp;

use crate::{ImageError, Result};

/// Metadata of a path in a root, the last link not followed.
#[derive(Debug, Clone)]
pub struct PathInfo {
    pub name: String,
    pub size: u64,
    /// st_mode
    pub mode: u32,
    pub modified: Timestamp,
    pub link_target: Option<PathBuf>,
}

pub fn stat(_root: &RootDir, _path: &Path) -> Result<PathInfo> {
    Err(ImageError::Unimplemented("copying files in and out of a root"))
}
/// Tar of the file or directory, named by its last component, as Docker's `GET archive`.
pub fn pack(_root: &RootDir, _path: &Path, _out: &mut (dyn Write + Send)) -> Result<()> {
    Err(ImageError::Unimplemented("copying files in and out of a root"))
}
/// Tar of the whole root (`export`), staying on its own file system.
pub fn export(_root: &RootDir, _out: &mut (dyn Write + Send)) -> Result<()> {
    Err(ImageError::Unimplemented("copying files in and out of a root"))
}
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners; else root (or as the archive says for plain Docker: kept).
    pub keep_owners: bool,
}
/// Extracts a tar into a directory of the root.
pub fn unpack(_root: &RootDir, _path: &Path, _tar: &mut (dyn Read + Send), _options: UnpackOptions) -> Result<()> {
    Err(ImageError::Unimplemented("copying files in and out of a root"))
}
