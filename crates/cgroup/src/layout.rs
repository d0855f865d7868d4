//! Which cgroup file systems this host has mounted, and where this process is in them.

use std::path::PathBuf;

use crate::controller::Controller;
use crate::error::CgroupError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies with controllers, and a v2 hierarchy beside them.
    Hybrid,
    /// One v2 hierarchy.
    V2,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// Controllers and named hierarchies as the kernel calls them: `cpu`, `cpuacct`, `name=systemd`.
    pub controllers: Vec<String>,
    /// Where this process is, as a path below `mount`.
    pub own: String,
}

/// The v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unified {
    pub mount: PathBuf,
    /// `cgroup.controllers` of the mount's root.
    pub controllers: Vec<String>,
    /// Where this process is, as a path below `mount`.
    pub own: String,
}

/// What [`Layout::detect`] found. Detect once and pass it on; a start path does not parse the mount table again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub version: Version,
    pub hierarchies: Vec<Hierarchy>,
    pub unified: Option<Unified>,
}

impl Layout {
    /// Reads the mount table and our own membership.
    ///
    /// # Errors
    /// `FailedPrecondition` when no cgroup file system is mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        Err(CgroupError::NotMounted)
    }

    /// `1` or `2`, as `docker info` shows it.
    pub fn version_text(&self) -> &'static str {
        match self.version {
            Version::V1 | Version::Hybrid => "1",
            Version::V2 => "2",
        }
    }

    /// Whether limits of this controller can be set here.
    pub fn has(&self, controller: Controller) -> bool {
        let _ = controller;
        false
    }
}
