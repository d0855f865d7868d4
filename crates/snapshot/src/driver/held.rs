//! Files that are seen through a mount which this process holds open.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where files are, for as long as this is kept: where they are seen through a mount that a driver holds, it stays mounted, and the number in its
/// path (`/proc/<our pid>/fd/<n>/.`) comes to mean nothing else meanwhile, also when the driver lets go of it.
#[derive(Clone)]
pub struct Files {
    path: PathBuf,
    _mount: Option<Arc<OwnedFd>>,
}

impl Files {
    /// The root of a mount.
    pub fn of_mount(mount: &Arc<OwnedFd>) -> Self {
        let path = PathBuf::from(format!("/proc/{}/fd/{}/.", std::process::id(), mount.as_raw_fd()));
        Self { path, _mount: Some(Arc::clone(mount)) }
    }
}

/// A directory that is there by itself.
impl From<PathBuf> for Files {
    fn from(path: PathBuf) -> Self {
        Self { path, _mount: None }
    }
}

impl Deref for Files {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Files {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
