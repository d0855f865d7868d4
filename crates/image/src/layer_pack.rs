//! Makes the deterministic layer tar of an overlay upper directory: overlay whiteouts become OCI whiteouts.
//!
//! The same tree always gives the same bytes, and a layer that was applied and packed again is the same layer (same diff id).

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::pack_tree::{Tree, TreePacker, failed, open_directory};
use crate::tar_stream::TarWriter;

/// `lowers` top to bottom: they tell whether the root directory itself was changed, which else has no entry.
///
/// # Errors
/// `InvalidArgument` for a name that means a whiteout, or a tree too deep for any path; what the kernel says, with the path in the layer.
pub fn pack(upper: &Path, lowers: &[PathBuf], out: &mut dyn Write) -> Result<()> {
    let directory = open_directory(upper)?;
    let mut packer = TreePacker::new(TarWriter::new(out), Tree::Layer);
    let look = |path: &Path| {
        let stat = rustix::fs::stat(path).map_err(|errno| failed("stat", path.as_os_str().as_bytes(), errno))?;
        Ok::<_, crate::ImageError>((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    };
    let below = match lowers.first() {
        Some(lower) => look(lower)?,
        None => (0o755, 0, 0),
    };
    if look(upper)? != below {
        packer.directory_entry(directory.as_fd(), b"./")?;
    }
    packer.children(directory.as_fd(), &mut Vec::new(), 0)?;
    packer.finish()
}
