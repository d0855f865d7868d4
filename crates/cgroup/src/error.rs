//! What can go wrong, named by what we tried.

use std::path::PathBuf;
use std::time::Duration;

use berth_types::{Classify, ErrorClass};
use rustix::io::Errno;

use crate::controller::Controller;
use crate::dbus::DbusError;

/// A request that this host, or any host, cannot carry out. Found before the kernel is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    #[error("{limit} needs the cgroup controller {controller}, which this host does not have")]
    NoController { limit: &'static str, controller: Controller, way_out: String },
    #[error("{limit} cannot be enforced on {version}: there is no file for it")]
    NotOnVersion { limit: &'static str, version: &'static str, way_out: String },
    /// In runc's words.
    #[error("invalid configuration: cannot use unified on cgroup v1")]
    UnifiedOnV1 { way_out: String },
    #[error("{limit}: {value} is not allowed, {reason}")]
    BadValue { limit: &'static str, value: String, reason: String },
}

impl Classify for PlanError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoController { .. } | Self::NotOnVersion { .. } | Self::UnifiedOnV1 { .. } => {
                ErrorClass::FailedPrecondition
            }
            Self::BadValue { .. } => ErrorClass::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoController { way_out, .. } | Self::NotOnVersion { way_out, .. } | Self::UnifiedOnV1 { way_out } => {
                Some(way_out.clone())
            }
            Self::BadValue { .. } => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    #[error("cannot read {}", .file.display())]
    Read { file: PathBuf, source: Errno },
    #[error("{} holds {text:?}, which is not what it should", .file.display())]
    Parse { file: PathBuf, text: String },
    #[error("no cgroup file system is mounted")]
    NotMounted,
    #[error("cgroup path {path:?} is not usable: {reason}")]
    BadPath { path: String, reason: &'static str },
    #[error("cannot create cgroup {}", .path.display())]
    Create { path: PathBuf, source: Errno },
    #[error("cannot open cgroup {}", .path.display())]
    Open { path: PathBuf, source: Errno },
    #[error("there is no cgroup {path}")]
    NotFound { path: String },
    #[error("cannot set {limit}: writing {value:?} to {} failed", .file.display())]
    Write { limit: &'static str, file: PathBuf, value: String, source: Errno },
    #[error("cannot set {limit}: this host has no {}", .file.display())]
    NoFile { limit: &'static str, file: PathBuf, way_out: String },
    #[error("memory.limit of {limit} bytes is below the {usage} bytes in use")]
    LimitBelowUsage { limit: i64, usage: u64 },
    #[error("cannot attach process {pid} to {}", .path.display())]
    Attach { pid: i32, path: PathBuf, source: Errno },
    #[error("cannot attach the device program to {}", .path.display())]
    DeviceProgram { path: PathBuf, source: Errno },
    #[error("cannot signal process {pid} of cgroup {path}")]
    Signal { pid: i32, path: String, source: Errno },
    #[error("cannot watch {}", .file.display())]
    Watch { file: PathBuf, source: Errno },
    #[error("cgroup {path} was not {wanted} within {waited:?}")]
    Deadline { path: String, wanted: &'static str, waited: Duration },
    #[error("cannot delete cgroup {}", .path.display())]
    Delete { path: PathBuf, source: Errno },
    #[error("cgroup {path} has no {what} on this host")]
    Unsupported { path: String, what: &'static str },
    #[error("cannot {what} {unit} by systemd")]
    Systemd { what: &'static str, unit: String, source: DbusError },
    #[error("systemd did not {what} {unit}: its job ended as {result:?}")]
    Job { what: &'static str, unit: String, result: String },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Classify for CgroupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::BadPath { .. } => ErrorClass::InvalidArgument,
            Self::NotMounted | Self::NoFile { .. } | Self::LimitBelowUsage { .. } | Self::Unsupported { .. } => {
                ErrorClass::FailedPrecondition
            }
            Self::Deadline { .. } => ErrorClass::DeadlineExceeded,
            Self::Systemd { source, .. } => source.class(),
            Self::Job { .. } => ErrorClass::FailedPrecondition,
            Self::Plan(source) => source.class(),
            Self::Parse { .. } => ErrorClass::Internal,
            Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Open { source, .. }
            | Self::Write { source, .. }
            | Self::Attach { source, .. }
            | Self::DeviceProgram { source, .. }
            | Self::Signal { source, .. }
            | Self::Watch { source, .. }
            | Self::Delete { source, .. } => class_of(*source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoFile { way_out, .. } => Some(way_out.clone()),
            Self::NotMounted => Some("mount cgroup2 at /sys/fs/cgroup".to_owned()),
            Self::Plan(source) => source.hint(),
            Self::Systemd { source: DbusError::Connect { .. }, .. } => {
                Some("is systemd process 1 here? the cgroupfs driver needs none".to_owned())
            }
            Self::Systemd { source: DbusError::Deadline { .. }, .. } => {
                Some("systemd is busy or hangs; see what it is at with: systemctl list-jobs".to_owned())
            }
            Self::Job { unit, .. } => Some(format!("see why with: systemctl status {unit}; journalctl -b _PID=1")),
            _ => None,
        }
    }
}

fn class_of(errno: Errno) -> ErrorClass {
    match errno {
        Errno::NOENT | Errno::NODEV => ErrorClass::NotFound,
        Errno::EXIST => ErrorClass::AlreadyExists,
        Errno::INVAL | Errno::RANGE | Errno::NAMETOOLONG => ErrorClass::InvalidArgument,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorClass::PermissionDenied,
        Errno::BUSY => ErrorClass::FailedPrecondition,
        Errno::NOSPC | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE => ErrorClass::ResourceExhausted,
        _ => ErrorClass::Internal,
    }
}
