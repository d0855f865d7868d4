//! What a caller says besides the spec.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use berth_oci::runtime::LinuxIdMapping;
use berth_rootfs::OverlayRootfs;
use berth_types::ContainerId;

use crate::cgroup_driver::CgroupDriver;
use crate::error::RuntimeError;
use crate::id_map::{IdMaps, mapping_namespace};
use crate::meanwhile::Meanwhile;

/// Where the container's root file system comes from.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// `root.path` of the spec, relative to the bundle; used as it is (runb, foreign engines).
    Bundle,
    /// An overlay to be mounted by us as a detached mount, never visible on the host.
    Overlay(OverlayRootfs, LayerOwners),
}

/// Whose the files of an overlay's layers are in a container with a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LayerOwners {
    /// As they are stored: somebody gave them to the container's users, or means them not to have any.
    #[default]
    AsStored,
    /// Stored as in the image, the writable pair too, and mapped to the container's users by the mounts.
    Mapped,
    /// The lower layers are mapped so; the writable pair has the host's ids of the container's users.
    LowersMapped { uids: Vec<LinuxIdMapping>, gids: Vec<LinuxIdMapping> },
}

impl LayerOwners {
    /// Mounts an overlay for a runtime that wants its root ready: [`LayerOwners::Mapped`] is our own runtime's alone, and here as stored.
    ///
    /// # Errors
    /// `InvalidArgument` for mappings the kernel does not take; what the kernel says of the mount.
    pub fn mount(&self, overlay: &OverlayRootfs) -> Result<OwnedFd, RuntimeError> {
        let Self::LowersMapped { uids, gids } = self else { return Ok(overlay.mount_detached()?) };
        let user_ns = mapping_namespace(&IdMaps::new(uids, gids)?).map_err(|source| RuntimeError::Kernel {
            what: "make a user namespace that carries the mapping",
            source,
        })?;
        Ok(overlay.mount_detached_with_mapped_lowers(user_ns.as_fd())?)
    }
}

/// The three standard streams of a process: either pipes or files handed over, or a new pseudo-terminal.
#[derive(Debug)]
pub enum Stdio {
    Fds {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A pty is made inside the container's devpts; its master comes back in `Process::console`.
    Terminal {
        rows: u16,
        columns: u16,
        /// A newline stays one (`ONLCR` off): its reader writes to a terminal that adds the carriage return.
        keeps_newlines: bool,
    },
}

#[derive(Debug)]
pub struct CreateOptions {
    pub id: ContainerId,
    pub bundle: PathBuf,
    pub rootfs: Rootfs,
    pub stdio: Stdio,
    /// Ready seccomp program (`berth_seccomp::Program` bytes) instead of `linux.seccomp` of the spec.
    pub seccomp_program: Option<Vec<u8>>,
    /// What most callers leave at its default.
    pub tuning: Tuning,
}

/// Rarely used switches of create; `Tuning::default()` is right for the shim.
#[derive(Debug, Default)]
pub struct Tuning {
    /// Do not join a fresh session keyring.
    pub keep_keyring: bool,
    /// `MS_MOVE` and chroot instead of `pivot_root` (root file system in an initramfs).
    pub no_pivot: bool,
    /// File descriptors 3..3+n stay open in the container's process.
    pub preserve_fds: u32,
    /// A listening `SOCK_SEQPACKET` socket at which init waits for its start, so that it can outlive its creator
    /// (see [`crate::StateDir`]). Without it, init dies with the process that made it unless it was started.
    pub start_listener: Option<OwnedFd>,
    /// Who makes the container's cgroup.
    pub cgroup_driver: CgroupDriver,
    /// Create fails when there is no program to start, as runc's does; otherwise start does.
    pub finds_program: bool,
    /// What the calling process may do.
    pub rights: Rights,
    /// A cgroup that may not be made is done without; limits that were asked for are then a warning.
    pub may_lack_cgroup: bool,
    /// Where compiled seccomp profiles are kept, by their hash; a directory of the runtime's own.
    pub seccomp_cache: Option<PathBuf>,
    /// What is done while hooks are waited for, for the container's life.
    pub meanwhile: Meanwhile,
    /// Let this step fail (tests of the roll-back).
    pub fault: Option<Fault>,
}

/// What the runtime itself may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rights {
    /// Root's on the host.
    #[default]
    Full,
    /// Root's in a user namespace that somebody else made: device files can be bound, not made.
    UserNamespaceRoot,
    /// An ordinary user's: mounts and mappings are made inside of, or for, a new user namespace.
    Ordinary,
}

/// A step of the plan, by its index in the order of application, that fails with `EIO` before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub usize);

/// Rarely used switches of exec; `ExecTuning::default()` is right for the shim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecTuning {
    /// File descriptors 3..3+n of the caller stay open in the process.
    pub preserve_fds: u32,
    /// Join a paused container, too: the process waits until it is resumed.
    pub even_paused: bool,
    /// Existing sub-groups of the container's cgroup to live in: controller (empty for the v2 hierarchy) and path.
    pub sub_cgroups: Vec<(String, String)>,
    /// Let this step fail (tests of the roll-back).
    pub fault: Option<Fault>,
}
