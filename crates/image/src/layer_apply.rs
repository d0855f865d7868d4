//! Extracts a layer tar into an empty directory; OCI whiteouts become overlay whiteouts and opaque directories.
//!
//! The layer may be anybody's: see `extract` for what holds whatever it contains. Nothing is synced (the snapshot store settles layers).

use std::io::Read;
use std::path::Path;

use berth_rootfs::RootDir;

use crate::Result;
use crate::extract::{Extractor, Placement};
use crate::tar_stream::TarReader;

/// What was extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Sum of the sizes of regular files.
    pub size_bytes: u64,
}

/// `tar` is the uncompressed layer; it may stop at the end-of-archive marker without reading what follows. `into` is an empty layer directory.
///
/// # Errors
/// `InvalidArgument` where the archive is damaged, ambiguous, or wants something outside its root; what the kernel says, with the entry's name.
pub fn apply(tar: &mut dyn Read, into: &RootDir) -> Result<Applied> {
    apply_on(tar, into, &[])
}

/// The same for a layer that will lie on others (top to bottom): a directory that the archive does not mention but puts something into then
/// looks as it does below, instead of changing owner and mode in the merged view.
///
/// # Errors
/// As [`apply`].
pub fn apply_on(tar: &mut dyn Read, into: &RootDir, lowers: &[RootDir]) -> Result<Applied> {
    let mut reader = TarReader::new(tar);
    let size_bytes = Extractor::new(into, Path::new(""), lowers, Placement::Layer).extract(&mut reader)?;
    Ok(Applied { size_bytes })
}

/// Onto a copy of everything below: whiteouts delete from it.
///
/// # Errors
/// As [`apply`].
pub fn apply_merged(tar: &mut dyn Read, into: &RootDir) -> Result<Applied> {
    let mut reader = TarReader::new(tar);
    let size_bytes = Extractor::new(into, Path::new(""), &[], Placement::Merge).extract(&mut reader)?;
    Ok(Applied { size_bytes })
}
