//! Which cgroup file systems this host has mounted, and where this process is in them.

mod mount_table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies with controllers, and a v2 hierarchy beside them.
    Hybrid,
    /// One v2 hierarchy (named v1 hierarchies without controllers may be there).
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

/// Where a controller's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the hierarchy of this index.
    V1(usize),
    V2,
}

impl Layout {
    /// Reads the mount table and our own membership.
    ///
    /// # Errors
    /// `FailedPrecondition` when no cgroup file system is mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        let mounts = file::read_path(Path::new("/proc/self/mountinfo"))?;
        let membership = file::read_path(Path::new("/proc/self/cgroup"))?;
        let mut layout = Self::parse(&mounts, &membership)?;
        if let Some(unified) = &mut layout.unified {
            let controllers = file::read_path(&unified.mount.join("cgroup.controllers"))?;
            unified.controllers = controllers.split_whitespace().map(str::to_owned).collect();
        }
        Ok(layout)
    }

    /// The layout in the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`; what the v2 root offers is not in them.
    ///
    /// # Errors
    /// `FailedPrecondition` when no cgroup file system is mounted.
    pub fn parse(mountinfo: &str, membership: &str) -> Result<Self, CgroupError> {
        let (hierarchies, unified) = mount_table::parse(mountinfo, membership);
        let with_controllers = hierarchies.iter().any(|h| h.controllers.iter().any(|name| !name.starts_with("name=")));
        let version = match (with_controllers, &unified) {
            (false, None) => return Err(CgroupError::NotMounted),
            (false, Some(_)) => Version::V2,
            (true, None) => Version::V1,
            (true, Some(_)) => Version::Hybrid,
        };
        Ok(Self { version, hierarchies, unified })
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
        self.home(controller).is_some()
    }

    pub(crate) fn home(&self, controller: Controller) -> Option<Home> {
        let name = controller.v1_name();
        if let Some(index) = self.hierarchies.iter().position(|h| h.controllers.iter().any(|own| own == name)) {
            return Some(Home::V1(index));
        }
        let unified = self.unified.as_ref()?;
        let implicit = match controller {
            // These are part of every v2 hierarchy (freezer since 5.2, devices as eBPF since 4.15).
            Controller::Core | Controller::Freezer | Controller::Devices | Controller::PerfEvent => true,
            // cpu.stat is there without the controller.
            Controller::Cpuacct => self.version == Version::V2,
            _ => false,
        };
        (implicit || unified.controllers.iter().any(|own| own == controller.v2_name())).then_some(Home::V2)
    }
}
