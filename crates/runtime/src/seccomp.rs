//! The filter of a container: the engine's ready program, or the spec's profile compiled here.

use berth_oci::runtime::LinuxSeccomp;
use berth_seccomp::{Profile, Program};
use berth_sys::seccomp::FilterFlags;

use crate::error::RuntimeError;

/// Bytes and flags, ready for the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    program: Vec<u8>,
    flags: FilterFlags,
}

impl Filter {
    /// The engine's program wins over the spec's profile; without either there is no filter.
    pub(crate) fn new(
        ready: Option<&[u8]>,
        spec: Option<&LinuxSeccomp>,
        capabilities: &[String],
    ) -> Result<Option<Self>, RuntimeError> {
        match (ready, spec) {
            (Some(bytes), _) => {
                let program = Program::from_bytes(bytes)?.to_bytes();
                Ok(Some(Self { program, flags: FilterFlags::default() }))
            }
            (None, Some(spec)) => Self::compile(spec, capabilities).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn compile(spec: &LinuxSeccomp, capabilities: &[String]) -> Result<Self, RuntimeError> {
        if spec.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
            return Err(RuntimeError::Unsupported { what: "handing out a seccomp listener (listenerPath)".to_owned() });
        }
        // Both crates describe the same document of the runtime specification.
        let json = serde_json::to_vec(spec)
            .map_err(|error| RuntimeError::Spec { field: "linux.seccomp", problem: error.to_string() })?;
        let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        let filter = Profile::parse(&json)?.resolve(&names, kernel_version())?;
        let flags = FilterFlags {
            log: filter.flags.log,
            spec_allow: filter.flags.spec_allow,
            wait_kill_recv: filter.flags.wait_kill_recv,
            thread_sync: filter.flags.thread_sync,
        };
        Ok(Self { program: filter.compile()?.to_bytes(), flags })
    }

    /// Flags (one byte) and program, as a state directory keeps them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let flags = [self.flags.log, self.flags.spec_allow, self.flags.wait_kill_recv, self.flags.thread_sync];
        let bits = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        [&[bits], self.program.as_slice()].concat()
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (bits, program) = bytes.split_first().ok_or("is empty")?;
        let flags = FilterFlags {
            log: bits & 1 != 0,
            spec_allow: bits & 2 != 0,
            wait_kill_recv: bits & 4 != 0,
            thread_sync: bits & 8 != 0,
        };
        let program = Program::from_bytes(program).map_err(|error| error.to_string())?.to_bytes();
        Ok(Self { program, flags })
    }

    pub(crate) fn load(&self) -> Result<(), rustix::io::Errno> {
        berth_sys::seccomp::load_filter(&self.program, self.flags)
    }
}

/// Major and minor number of the running kernel.
fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
