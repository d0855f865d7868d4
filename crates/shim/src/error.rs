//! Errors of the shim: of its start and end as a process (`ShimError`), and of calls on its task (`TaskError`).
//! The one table to ttrpc is `berth_proto::code`.

use std::io;
use std::path::PathBuf;

use berth_proto::ttrpc;
use berth_runtime::RuntimeError;
use berth_shim_client::ShimError as ShimClientError;
use berth_types::id::IdError;
use berth_types::{Classify, ErrorClass};

use crate::io::{IoError, UriError};
use crate::oci::CommandError;

/// The shim cannot start, serve or clean up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    #[error(
        "{problem}; usage: containerd-shim-berth-v1 -namespace NS -id ID [-address SOCKET] [-bundle DIR] start|delete"
    )]
    Usage { problem: String },
    #[error("cannot read the bootstrap parameters from stdin")]
    Bootstrap { source: io::Error },
    #[error("socket directory {} belongs to somebody else or is open to others", .path.display())]
    SocketDir { path: PathBuf },
    #[error("a shim for this id is already listening at {}", .path.display())]
    AlreadyListening { path: PathBuf },
    #[error("cannot {what} {}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {what}")]
    Process { what: &'static str, source: io::Error },
    #[error("cannot write the answer to stdout")]
    Answer { source: io::Error },
    #[error("cannot serve on {}: {detail}", .path.display())]
    Serve { path: PathBuf, detail: String },
    #[error("cannot {what} what is left of the task")]
    Cleanup { what: &'static str, source: Box<berth_cgroup::CgroupError> },
    #[error("cannot clean up what another runtime made")]
    OtherRuntime { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("process {pid} of the task does not end")]
    Unkillable { pid: u32 },
}

impl Classify for ShimError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Usage { .. } => ErrorClass::InvalidArgument,
            Self::SocketDir { .. } => ErrorClass::PermissionDenied,
            Self::AlreadyListening { .. } => ErrorClass::AlreadyExists,
            Self::Unkillable { .. } => ErrorClass::DeadlineExceeded,
            Self::Cleanup { source, .. } => source.class(),
            _ => ErrorClass::Internal,
        }
    }
}

/// A call on the task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("no task {id:?} in this shim")]
    NoTask { id: String },
    #[error("no sandbox {id:?} in this shim")]
    NoSandbox { id: String },
    #[error("processes of sandbox {id:?} do not end")]
    SandboxLives { id: String },
    #[error("no process {exec_id:?} in task {id:?}")]
    NoProcess { id: String, exec_id: String },
    #[error("process {exec_id:?} of task {id:?} has ended")]
    Ended { id: String, exec_id: String },
    #[error("this shim already has task {id:?}")]
    TaskExists { id: String },
    #[error("task {id:?} already has a process {exec_id:?}")]
    ProcessExists { id: String, exec_id: String },
    #[error("cannot {operation}: the process is {state}")]
    State { operation: &'static str, state: &'static str },
    #[error("{what} {value:?} is not valid")]
    Argument { what: &'static str, value: String },
    #[error("{id:?} is not valid")]
    Id { id: String, source: IdError },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot understand {what}")]
    Document { what: &'static str, source: serde_json::Error },
    #[error("rootfs mount of type {fstype:?} cannot be made by this shim")]
    Rootfs { fstype: String },
    #[error("{what} is not implemented by this shim")]
    Unimplemented { what: &'static str },
    #[error("no runtime {} in {}", .name.display(), join(.search))]
    NoRuntime { name: PathBuf, search: Vec<PathBuf> },
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(transparent)]
    Io(#[from] IoError),
    /// The container's program itself cannot be executed. The text before the colon is a contract with the client.
    #[error("exec: {}", program_failure(.cause))]
    Exec { class: ErrorClass, cause: RuntimeError },
    /// The same, as another runtime or shim says it.
    #[error("exec")]
    OtherExec { class: ErrorClass, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot {operation} the container")]
    Runtime { operation: &'static str, source: RuntimeError },
    #[error("cannot {operation} the container")]
    Command { operation: &'static str, source: CommandError },
    #[error("cannot {operation} the container")]
    Relay { operation: &'static str, source: ShimClientError },
    #[error("cannot read the container's cgroup")]
    Cgroup { source: berth_cgroup::CgroupError },
    #[error("cannot move the shim to the cgroup that was asked for it")]
    ShimCgroup { source: berth_cgroup::CgroupError },
    #[error("cannot signal process {pid}")]
    Signal { pid: u32, source: io::Error },
    #[error("cannot become the parent of what other runtimes leave behind")]
    Reaper { source: io::Error },
    #[error("no criu in {}; checkpoints need it", join(.search))]
    NoCriu { search: Vec<PathBuf> },
    #[error("{text}")]
    Checkpoint { class: ErrorClass, text: String },
    #[error("cannot make a process to {operation} the container")]
    Helper { operation: &'static str, source: io::Error },
    #[error("cannot watch process {pid}")]
    Watch { pid: u32, source: io::Error },
}

/// What is wrong with the program, without the step that found it: that is nothing the caller can act on.
fn program_failure(cause: &RuntimeError) -> String {
    match cause {
        RuntimeError::Step { detail, .. } if detail.starts_with("exec: ") => detail["exec: ".len()..].to_owned(),
        other => berth_types::report(other),
    }
}

impl Classify for TaskError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoTask { .. }
            | Self::NoSandbox { .. }
            | Self::NoProcess { .. }
            | Self::Ended { .. }
            | Self::NoRuntime { .. } => ErrorClass::NotFound,
            Self::SandboxLives { .. } => ErrorClass::DeadlineExceeded,
            Self::TaskExists { .. } | Self::ProcessExists { .. } => ErrorClass::AlreadyExists,
            Self::State { .. } => ErrorClass::FailedPrecondition,
            Self::Argument { .. } | Self::Id { .. } | Self::Document { .. } => ErrorClass::InvalidArgument,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Rootfs { .. } | Self::Unimplemented { .. } | Self::NoCriu { .. } => ErrorClass::Unimplemented,
            Self::Uri(error) => error.class(),
            Self::Io(error) => error.class(),
            Self::Exec { class, .. } | Self::OtherExec { class, .. } | Self::Checkpoint { class, .. } => *class,
            Self::Runtime { source, .. } => source.class(),
            Self::Command { source, .. } => source.class(),
            Self::Relay { source, .. } => source.class(),
            Self::Cgroup { source } | Self::ShimCgroup { source } => source.class(),
            Self::Read { .. }
            | Self::Signal { .. }
            | Self::Watch { .. }
            | Self::Reaper { .. }
            | Self::Helper { .. } => ErrorClass::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exec { cause, .. } => cause.hint(),
            Self::Runtime { source, .. } => source.hint(),
            Self::Cgroup { source } | Self::ShimCgroup { source } => source.hint(),
            _ => None,
        }
    }
}

fn join(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
}

impl From<TaskError> for ttrpc::Error {
    /// The status carries the whole chain: step, object and the kernel's answer.
    fn from(error: TaskError) -> Self {
        let code = berth_proto::code::code_of(error.class());
        Self::RpcStatus(ttrpc::get_status(code, berth_types::report(&error)))
    }
}
