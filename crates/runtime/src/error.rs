//! What can go wrong: in the documents, in a step, or because of the state the container is in.

use berth_cgroup::{CgroupError, PlanError};
use berth_rootfs::OverlayError;
use berth_rootfs::mounts::MountError;
use berth_seccomp::SeccompError;
use berth_types::{Classify, ErrorClass};
use rustix::io::Errno;

/// Why the container's program could not be executed; engines map these to exit codes 127 and 126.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecFailure {
    NotFound,
    NotExecutable,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    #[error("the spec's {field} is not valid: {problem}")]
    Spec { field: &'static str, problem: String },
    #[error("{what} cannot be done by this runtime yet")]
    Unsupported { what: String },
    /// The kernel or the machine lacks it: another host can run the same container.
    #[error("{wanted_by} needs {what}, which this host does not have")]
    HostLacks { wanted_by: &'static str, what: &'static str },
    /// A step failed, in the caller or in init.
    #[error("step {step} failed{}", on(.object, .detail))]
    Step { step: String, object: String, detail: String, source: Errno },
    #[error("cannot {what} the cgroup")]
    Cgroup { what: &'static str, source: Box<CgroupError> },
    #[error("the limits asked for do not fit this host")]
    Limits(#[from] PlanError),
    #[error("cannot mount the root file system")]
    Overlay(#[from] OverlayError),
    #[error("cannot prepare a mount")]
    Mount(#[from] MountError),
    /// See mount_namespaces(7), "Restrictions on mount namespaces".
    #[error(
        "error mounting {source_path} at {destination}: an option takes off what its source has and a user namespace keeps: \
         operation not permitted"
    )]
    Locked { source_path: String, destination: String },
    #[error("cannot prepare the seccomp filter")]
    Seccomp(#[from] SeccompError),
    /// `index` counts the hooks of a stage from 0; in runc's words.
    #[error("error running {stage} hook #{index}: {path}: {problem}")]
    Hook { stage: &'static str, index: usize, path: String, problem: String },
    /// criu said no; `said` is its own last word on it.
    #[error("cannot {what}: {said} (log: {log})")]
    Criu { what: &'static str, said: String, log: String },
    #[error("{what} needs root")]
    NeedsRoot { what: String },
    #[error("the container's init ended during step {step} without a report")]
    InitDied { step: String },
    #[error("the container is {state}; {wanted}")]
    State { state: &'static str, wanted: &'static str },
    #[error("cannot {what}")]
    Kernel { what: &'static str, source: Errno },
    #[error("cannot {what} {path}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("{path} is not a container state: {problem}")]
    BadState { path: String, problem: String },
    #[error("container {id} {problem}")]
    Container { id: String, problem: &'static str, class: ErrorClass },
}

fn on(object: &str, detail: &str) -> String {
    let mut text = String::new();
    if !object.is_empty() {
        text.push_str(" on ");
        text.push_str(object);
    }
    if !detail.is_empty() {
        text.push_str(": ");
        text.push_str(detail);
    }
    text
}

impl RuntimeError {
    /// When the reason is the container's program itself: which of the two conventional exit codes fits.
    pub fn exec_failure(&self) -> Option<ExecFailure> {
        match self {
            Self::Step { step, source, .. }
                if [crate::plan::EXECUTE, crate::plan::FIND_PROGRAM].contains(&step.as_str()) =>
            {
                Some(match *source {
                    Errno::NOENT | Errno::NOTDIR => ExecFailure::NotFound,
                    _ => ExecFailure::NotExecutable,
                })
            }
            _ => None,
        }
    }
}

impl Classify for RuntimeError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Spec { .. } => ErrorClass::InvalidArgument,
            Self::Unsupported { .. } => ErrorClass::Unimplemented,
            Self::HostLacks { .. } => ErrorClass::FailedPrecondition,
            Self::Step { source, .. } | Self::Kernel { source, .. } => of_errno(*source),
            Self::Cgroup { source, .. } => source.class(),
            Self::Limits(error) => error.class(),
            Self::Overlay(error) => error.class(),
            Self::Mount(error) => error.class(),
            Self::Seccomp(error) => error.class(),
            Self::Hook { .. } | Self::State { .. } => ErrorClass::FailedPrecondition,
            Self::Criu { .. } => ErrorClass::FailedPrecondition,
            Self::NeedsRoot { .. } | Self::Locked { .. } => ErrorClass::PermissionDenied,
            Self::InitDied { .. } => ErrorClass::Internal,
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorClass::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorClass::PermissionDenied,
                _ => ErrorClass::Internal,
            },
            Self::BadState { .. } => ErrorClass::DataLoss,
            Self::Container { class, .. } => *class,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Limits(error) => error.hint(),
            Self::Cgroup { source, .. } => source.hint(),
            Self::Locked { source_path, destination } => Some(format!(
                "leave out rw, suid, dev, exec or the way of keeping access times, whichever the source does not have (what runc says: \
                 runc run failed: unable to start container process: error during container init: error mounting \
                 \"{source_path}\" to rootfs at \"{destination}\": cannot clear locked flags: operation not permitted)"
            )),
            // What criu says first on a kernel that is newer than it.
            Self::Criu { said, .. } if said.contains("vDSO") || said.contains("vdso") => Some(
                "this criu does not know the running kernel; a newer one does (on Linux 6.18 4.1 works, 3.17 does not)".to_owned(),
            ),
            Self::NeedsRoot { .. } => Some(
                "an ordinary user's container has a user namespace of its own; runb spec --rootless writes such a config.json"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn of_errno(errno: Errno) -> ErrorClass {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::SRCH => ErrorClass::NotFound,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorClass::PermissionDenied,
        Errno::INVAL | Errno::LOOP | Errno::NOEXEC | Errno::ISDIR | Errno::NAMETOOLONG | Errno::TOOBIG => {
            ErrorClass::InvalidArgument
        }
        Errno::NOSPC | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::DQUOT => {
            ErrorClass::ResourceExhausted
        }
        Errno::TIMEDOUT => ErrorClass::DeadlineExceeded,
        Errno::NOSYS | Errno::OPNOTSUPP => ErrorClass::Unimplemented,
        _ => ErrorClass::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_criu_that_is_too_old_is_told_of() {
        let error = |said: &str| RuntimeError::Criu {
            what: "save the container",
            said: said.to_owned(),
            log: "/images/dump.log".to_owned(),
        };
        let old = error("(00.01) Error (criu/vdso.c:264): vdso: Unexpected rt vDSO area bounds");
        assert!(old.hint().unwrap().contains("newer"), "{:?}", old.hint());
        assert_eq!(error("(00.02) Error (criu/net.c:3282): net: Locking network failed").hint(), None);
    }
}
