//! Speaking to a shim: find its binary by runtime name, start it, connect, call Task over ttrpc, find it again after a restart.
//!
//! What it is not: the shim itself, or policy about when to start and delete. Wire types do not leave this crate.
//! Needs a tokio runtime with I/O and time. Every call has a deadline except `wait`, which stays open as long as the process runs.

mod answer;
mod attach;
mod client;
mod error;
mod launch;
mod log;
mod runtime_name;
mod sandbox;
mod usage;

use std::path::PathBuf;

use berth_types::ContainerId;

pub use berth_proto::choice::RuntimeChoice;
pub use client::ShimClient;
pub use error::ShimError;
pub use log::follow_log;
pub use runtime_name::{OWN_RUNTIME, find_executable, find_shim};
pub use sandbox::{NewSandbox, SandboxMetric, SandboxStatus};
pub use usage::Usage;

/// The choice of another runtime as our own shim takes it with Create.
pub fn choice_options(choice: &RuntimeChoice) -> (String, Vec<u8>) {
    let json = serde_json::to_vec(choice).expect("paths and byte strings are JSON");
    (berth_proto::choice::TYPE_URL.to_owned(), json)
}

/// How a task's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitStatus {
    /// 0..=255; 128 + signal when killed by one.
    pub code: u32,
    pub exited_at: berth_types::Timestamp,
}

impl ExitStatus {
    /// 128 + SIGKILL: all that can be said of a process whose shim died, and with it.
    pub const KILLED: u32 = 137;

    /// The end, now, of a process that nobody saw end.
    pub fn killed() -> Self {
        Self { code: Self::KILLED, exited_at: berth_types::Timestamp::now() }
    }
}

#[derive(Debug, Clone)]
pub struct ShimOptions {
    /// Sealed copy of our own shim (memfd path `/proc/self/fd/N`) or a binary on disk.
    pub binary: PathBuf,
    pub namespace: String,
    pub id: ContainerId,
    /// Its last component is the id: `reconnect` relies on it.
    pub bundle: PathBuf,
    /// Directory for the shim's sockets, mode 0700.
    pub socket_dir: PathBuf,
    /// ttrpc socket on which the daemon takes events (`Events.Forward`).
    pub events_address: PathBuf,
    /// containerd's API, as shims are told by `-address`.
    pub grpc_address: PathBuf,
    /// Runtime options for the shim's start: type URL and message.
    pub runtime_options: Option<(String, Vec<u8>)>,
    pub reports: Reports,
    /// PATH for our own shim, which gets no other variable; others have the caller's environment.
    pub search: Vec<PathBuf>,
}

/// Which events a shim of ours is to tell; others tell all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// Everything shim v2 demands.
    All,
    /// Memory kills alone: the rest is followed by open calls.
    OutOfMemory,
}

/// What a task is made of, as the Task service's Create takes it.
#[derive(Debug, Clone, Default)]
pub struct CreateTask {
    pub rootfs: Vec<RootfsMount>,
    pub io: IoUris,
    /// Directory of a checkpoint to restore from; empty: none.
    pub checkpoint: String,
    /// Options for the runtime: type URL and message.
    pub options: Option<(String, Vec<u8>)>,
}

/// Standard I/O URIs of a process, as put into Create and Exec.
#[derive(Debug, Clone, Default)]
pub struct IoUris {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RootfsMount {
    pub fstype: String,
    pub source: String,
    /// Below the root file system; empty: the root itself.
    pub target: String,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Created,
    Running,
    Paused,
    Stopped,
    /// The shim does not say: gVisor's of a paused task.
    Unknown,
}

#[derive(Debug)]
pub struct StateReply {
    pub state: TaskState,
    pub pid: u32,
    pub exit: Option<ExitStatus>,
    /// The addresses it was made with.
    pub io: IoUris,
}

/// A process of a task; some shims know more of it than its pid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: u32,
    /// Type URL and message.
    pub info: Option<(String, Vec<u8>)>,
}

/// What an attached client wants. Output is framed as Docker's multiplexed stream (8-byte header) unless the process has a terminal.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Key sequence in bytes that detaches a client with stdin and a terminal; empty: none.
    pub detach_keys: Vec<u8>,
    /// Bytes the HTTP layer had already read from the client.
    pub early_input: Vec<u8>,
}
