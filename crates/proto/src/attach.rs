//! The attach protocol of `<bundle>/io.sock`, an addition of ours beside the Task service.
//!
//! ```text
//! client → shim   one line of JSON `Request`; its first byte carries the stream's descriptor (SCM_RIGHTS)
//! shim → client   one line of JSON `Reply`
//! ```
//!
//! From then on the shim moves bytes between that stream and the process. Both lines are bounded by `LINE_BYTES_MAX`.

/// Socket name inside the bundle.
pub const SOCKET_NAME: &str = "io.sock";
/// Longest line of either side, early input included.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Which process, and what the client wants of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Empty: the container's init.
    pub exec_id: String,
    pub options: Options,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    #[serde(default)]
    pub detach_keys: Vec<u8>,
    #[serde(default)]
    pub early_input: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Ok(bool),
    Error { class: berth_types::ErrorClass, message: String },
}
