//! Makes the deterministic layer tar of an overlay upper directory: overlay whiteouts become OCI whiteouts.
//! SEAM (stub).

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{ImageError, Result};

/// `lowers` top to bottom: needed to know what an opaque directory hides.
pub fn pack(_upper: &Path, _lowers: &[PathBuf], _out: &mut dyn Write) -> Result<()> {
    Err(ImageError::Unimplemented("packing a layer"))
}
