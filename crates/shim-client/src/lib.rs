//! Speaking to a shim: find its binary by runtime name, start it, connect, call Task over ttrpc, find it again after a restart.
//! SEAM (stub) used by `core`.

use std::path::PathBuf;

use berth_types::{ContainerId, ExecId, Signal};

/// How a task's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitStatus {
    /// 0..=255; 128 + signal when killed by one.
    pub code: u32,
    pub exited_at: berth_types::Timestamp,
}

#[derive(Debug, Clone)]
pub struct ShimOptions {
    /// Sealed copy of our own shim (memfd path `/proc/self/fd/N`) or a binary on disk.
    pub binary: PathBuf,
    pub namespace: String,
    pub id: ContainerId,
    pub bundle: PathBuf,
    /// Directory for the shim's sockets, mode 0700.
    pub socket_dir: PathBuf,
    /// ttrpc socket on which the daemon takes events (`Events.Forward`).
    pub events_address: PathBuf,
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
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Created,
    Running,
    Paused,
    Stopped,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// The shim answered an error of its own: its class and text.
    #[error("{message}")]
    Remote { class: berth_types::ErrorClass, message: String },
    #[error("stub")]
    Stub,
}

#[derive(Debug)]
pub struct StateReply {
    pub state: TaskState,
    pub pid: u32,
    pub exit: Option<ExitStatus>,
}

/// A connected shim.
#[derive(Debug, Clone)]
pub struct ShimClient {
    _private: (),
}

impl ShimClient {
    pub async fn start(_options: &ShimOptions) -> Result<Self, ShimError> {
        Err(ShimError::Stub)
    }
    /// Finds a running shim again by `<bundle>/address`.
    pub async fn reconnect(_bundle: &std::path::Path) -> Result<Self, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn create(
        &self,
        _id: &ContainerId,
        _bundle: &std::path::Path,
        _rootfs: &[RootfsMount],
        _io: &IoUris,
    ) -> Result<u32, ShimError> {
        Err(ShimError::Stub)
    }
    /// `exec_id` None: the container's init.
    pub async fn start_process(&self, _exec_id: Option<&ExecId>) -> Result<u32, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn exec(&self, _exec_id: &ExecId, _process: &[u8], _io: &IoUris) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn wait(&self, _exec_id: Option<&ExecId>) -> Result<ExitStatus, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn kill(&self, _exec_id: Option<&ExecId>, _signal: Signal, _all: bool) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn delete(&self, _exec_id: Option<&ExecId>) -> Result<ExitStatus, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn state(&self, _exec_id: Option<&ExecId>) -> Result<StateReply, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn pids(&self) -> Result<Vec<u32>, ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn pause(&self) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn resume(&self) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn resize_pty(&self, _exec_id: Option<&ExecId>, _rows: u16, _columns: u16) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn close_io(&self, _exec_id: Option<&ExecId>) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    /// JSON of `berth_oci::runtime::LinuxResources`.
    pub async fn update(&self, _resources: &[u8]) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
    pub async fn shutdown(&self) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }

    /// Hands a client's connected stream to the shim, which from then on moves bytes between it and the process itself,
    /// so an attached client survives the daemon.
    pub async fn attach(
        &self,
        _exec_id: Option<&ExecId>,
        _client: std::os::fd::OwnedFd,
        _options: &AttachOptions,
    ) -> Result<(), ShimError> {
        Err(ShimError::Stub)
    }
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

impl berth_types::Classify for ShimError {
    fn class(&self) -> berth_types::ErrorClass {
        match self {
            Self::Remote { class, .. } => *class,
            Self::Stub => berth_types::ErrorClass::Unimplemented,
        }
    }
}
