//! The OCI runtime: a validated spec becomes a plan (pure), the plan is applied to the kernel.
//! Starts no threads and no async runtime; the caller must be single-threaded while it creates or enters a container.
//!
//! SEAM (stub): the items below are what `shim`, `runb` and `engine` use.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_types::{ContainerId, Signal, Span};

/// Where the container's root file system comes from.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// `root.path` of the spec, relative to the bundle; used as it is (runb, foreign engines).
    Bundle,
    /// An overlay to be mounted by us as a detached mount, never visible on the host.
    Overlay(OverlayRootfs),
}

pub use berth_rootfs::OverlayRootfs;

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
    /// Let this step fail (tests of the roll-back).
    pub fault: Option<Fault>,
}

/// A step of the plan, by its index in the order of application, that fails with `EIO` before it does anything.
#[derive(Debug, Clone, Copy)]
pub struct Fault(pub usize);

/// A process of ours: the container's init or an exec.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Master side of the pseudo-terminal, when one was asked for.
    pub console: Option<OwnedFd>,
}

/// A created (later running) container, owned by the shim for its life.
#[derive(Debug)]
pub struct Container {
    pub init: Process,
    _private: (),
}

#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct RuntimeError;

impl Container {
    /// Plan and apply up to the point where init waits to exec. On failure everything done is undone.
    /// The spans of all steps, including those inside init, are appended to `spans`.
    pub fn create(
        _spec: &berth_oci::runtime::Spec,
        _options: CreateOptions,
        _spans: &mut Vec<Span>,
    ) -> Result<Self, RuntimeError> {
        Err(RuntimeError)
    }

    /// Lets init exec the user's program. Returns once exec has succeeded or failed.
    pub fn start(&mut self, _spans: &mut Vec<Span>) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }

    /// Starts a further process in the container's namespaces and cgroup; returns once it has exec'd or failed.
    pub fn exec(
        &self,
        _process: &berth_oci::runtime::Process,
        _stdio: Stdio,
        _spans: &mut Vec<Span>,
    ) -> Result<Process, RuntimeError> {
        Err(RuntimeError)
    }

    pub fn kill(&self, _signal: Signal) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }

    /// Every process of the cgroup: `cgroup.kill`, else freeze, signal, thaw. Returns when the cgroup is empty or the deadline is over.
    pub fn kill_all(&self, _signal: Signal) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }
    pub fn pause(&self) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }
    pub fn resume(&self) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }
    pub fn pids(&self) -> Result<Vec<u32>, RuntimeError> {
        Err(RuntimeError)
    }
    pub fn update(&self, _resources: &berth_oci::runtime::LinuxResources) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }

    /// Handle of the container's cgroup: stats, OOM notification fd, freezer state.
    pub fn cgroup(&self) -> &berth_cgroup::Cgroup {
        unimplemented!()
    }

    /// Kills what is left, removes cgroup and state. Idempotent.
    pub fn delete(self) -> Result<(), RuntimeError> {
        Err(RuntimeError)
    }
}

/// The pure plan as named steps with object and reason, for `--plan` (no root needed).
#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedStep {
    pub name: String,
    pub object: String,
    pub reason: String,
}

pub fn plan(_spec: &berth_oci::runtime::Spec, _rootfs: &Rootfs) -> Result<Vec<PlannedStep>, RuntimeError> {
    Err(RuntimeError)
}
