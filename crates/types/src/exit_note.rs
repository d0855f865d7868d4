//! `<bundle>/exit.json` (version 1): what an exit code cannot say. Written by the shim when a signal ended init, read by the engine.
//!
//! 137 may be SIGKILL or a program that returned 137; waitid(2) knows, the shim v2 protocol does not carry it.

/// Name of the file in the bundle.
pub const FILE: &str = "exit.json";
const VERSION: u32 = 1;
/// Longest file that is read.
pub const BYTES_MAX: u64 = 4096;

/// How a signal ended init. No note: init exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitNote {
    version: u32,
    /// As waitid(2) gives it.
    pub signal: i32,
    /// `CLD_DUMPED`
    pub core_dumped: bool,
    /// How many processes of the container the kernel had killed for lack of memory by then.
    #[serde(default, skip_serializing_if = "is_none")]
    pub oom_kills: u64,
}

impl ExitNote {
    pub const fn new(signal: i32, core_dumped: bool) -> Self {
        Self { version: VERSION, signal, core_dumped, oom_kills: 0 }
    }

    /// Of a version we know.
    pub const fn is_known(self) -> bool {
        self.version == VERSION
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}
