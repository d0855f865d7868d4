//! What a container changed: its upper directory against the layers below (`diff`).
//! SEAM (stub).

use std::path::PathBuf;

use berth_rootfs::OverlayRootfs;

use crate::{ImageError, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// Absolute path inside the container, as Docker's `diff` sorts and reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: PathBuf,
}

pub fn changes(_rootfs: &OverlayRootfs) -> Result<Vec<Change>> {
    Err(ImageError::Unimplemented("listing changes"))
}
