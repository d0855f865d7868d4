//! Overlay file systems as detached mounts: never in the host's mount table, gone with the last descriptor.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Layer directories top to bottom, plus the writable pair. Absolute paths of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OverlayRootfs {
    pub lowers: Vec<PathBuf>,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
    /// Skip syncs on unmount (kernel 5.10): throw-away containers only.
    pub is_volatile: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct OverlayError;

impl OverlayRootfs {
    /// Mounts it detached (`fsopen`, `lowerdir+` per layer where the kernel has it); any number of layers.
    pub fn mount_detached(&self) -> Result<OwnedFd, OverlayError> {
        Err(OverlayError)
    }
}
