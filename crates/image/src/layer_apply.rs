//! Extracts a layer tar into an empty directory; OCI whiteouts become overlay whiteouts and opaque directories.
//! SEAM (stub).

use std::io::Read;

use berth_rootfs::RootDir;

use crate::{ImageError, Result};

/// What was extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Sum of the sizes of regular files.
    pub size_bytes: u64,
}

/// `tar` is the uncompressed layer; it may stop at the end-of-archive marker without reading what follows. `into` is an empty layer directory.
pub fn apply(_tar: &mut dyn Read, _into: &RootDir) -> Result<Applied> {
    Err(ImageError::Unimplemented("unpacking a layer"))
}
