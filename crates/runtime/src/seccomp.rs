//! The filter of a container: the engine's ready program, or the spec's profile compiled here; and the way of its listener to the agent
//! that answers `SCMP_ACT_NOTIFY`.
//!
//! # Spec
//! runtime-spec config-linux, "Seccomp" and "The Container Process State".

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_oci::runtime::LinuxSeccomp;
use berth_seccomp::{Action, Profile, Program};
use berth_sys::seccomp::FilterFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::RuntimeError;
use crate::state::{ContainerState, OCI_VERSION};

/// Bytes and flags, ready for the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    program: Vec<u8>,
    flags: FilterFlags,
    /// Where the listener goes, when some calls notify.
    agent: Option<Agent>,
}

/// Who answers notifications.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Agent {
    path: PathBuf,
    metadata: Option<String>,
}

/// What the specification forbids, as far as it needs no compiling.
pub(crate) fn check(spec: &LinuxSeccomp) -> Result<(), RuntimeError> {
    let wrong = |problem: &str| RuntimeError::Spec { field: "linux.seccomp", problem: problem.to_owned() };
    let path = spec.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let has_metadata = spec.listener_metadata().as_ref().is_some_and(|text| !text.is_empty());
    if has_metadata && path.is_none() {
        return Err(wrong("listenerMetadata without listenerPath"));
    }
    if path.is_some_and(|path| !path.is_absolute()) {
        return Err(wrong("listenerPath is not an absolute path"));
    }
    if spec.syscalls().iter().flatten().any(|rule| rule.names().is_empty()) {
        return Err(wrong("a rule names no system call"));
    }
    Ok(())
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
                Ok(Some(Self { program, flags: FilterFlags::default(), agent: None }))
            }
            (None, Some(spec)) => Self::compile(spec, capabilities).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn compile(spec: &LinuxSeccomp, capabilities: &[String]) -> Result<Self, RuntimeError> {
        check(spec)?;
        let wrong = |problem: String| RuntimeError::Spec { field: "linux.seccomp", problem };
        // Both crates describe the same document of the runtime specification.
        let json = serde_json::to_vec(spec).map_err(|error| wrong(error.to_string()))?;
        let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        let filter = Profile::parse(&json)?.resolve(&names, kernel_version())?;
        if filter.default_action == Action::Notify {
            // Its own start would be the first thing to be asked about, before anybody can answer.
            return Err(wrong("SCMP_ACT_NOTIFY cannot be the default action".to_owned()));
        }
        let notifies = filter.rules.iter().any(|rule| rule.action == Action::Notify);
        let path = spec.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
        let agent = match (notifies, path) {
            (false, _) => None,
            (true, Some(path)) => Some(Agent { path, metadata: spec.listener_metadata().clone() }),
            (true, None) => return Err(wrong("SCMP_ACT_NOTIFY without listenerPath".to_owned())),
        };
        let flags = FilterFlags {
            log: filter.flags.log,
            spec_allow: filter.flags.spec_allow,
            // About notifications only: the kernel refuses it without a listener.
            wait_kill_recv: filter.flags.wait_kill_recv && notifies,
            thread_sync: filter.flags.thread_sync,
        };
        Ok(Self { program: filter.compile()?.to_bytes(), flags, agent })
    }

    /// A byte of flags, the agent where there is one (length first, JSON) and the program, as a state directory keeps them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let agent = self.agent.as_ref().and_then(|agent| serde_json::to_vec(agent).ok());
        let flags =
            [self.flags.log, self.flags.spec_allow, self.flags.wait_kill_recv, self.flags.thread_sync, agent.is_some()];
        let bits = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        let agent = agent.map_or_else(Vec::new, |text| {
            [&u32::try_from(text.len()).unwrap_or(0).to_le_bytes(), text.as_slice()].concat()
        });
        [&[bits], agent.as_slice(), self.program.as_slice()].concat()
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (bits, rest) = bytes.split_first().ok_or("is empty")?;
        let flags = FilterFlags {
            log: bits & 1 != 0,
            spec_allow: bits & 2 != 0,
            wait_kill_recv: bits & 4 != 0,
            thread_sync: bits & 8 != 0,
        };
        let (agent, program) = if bits & 16 == 0 {
            (None, rest)
        } else {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or("is cut")?;
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|error| error.to_string())?;
            let (text, program) = rest.split_at_checked(length).ok_or("is cut")?;
            (Some(serde_json::from_slice(text).map_err(|error| error.to_string())?), program)
        };
        let program = Program::from_bytes(program).map_err(|error| error.to_string())?.to_bytes();
        Ok(Self { program, flags, agent })
    }

    pub(crate) fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    pub(crate) fn load(&self) -> Result<(), Errno> {
        berth_sys::seccomp::load_filter(&self.program, self.flags)
    }

    pub(crate) fn load_with_listener(&self) -> Result<OwnedFd, Errno> {
        berth_sys::seccomp::load_filter_with_listener(&self.program, self.flags)
    }
}

impl Agent {
    /// Sends the listener with the container's process state, one connection for it alone.
    pub(crate) fn hand_over(
        &self,
        listener: BorrowedFd<'_>,
        pid: u32,
        state: &ContainerState,
    ) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::Kernel { what: "hand the seccomp listener to its agent", source };
        let mut state = state.clone();
        state.pid = pid;
        let document = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata.as_deref().unwrap_or_default(),
            "state": state,
        });
        let text = document.to_string();
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        let address = SocketAddrUnix::new(&self.path).map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [listener];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(failed(Errno::NOBUFS));
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let slices = [IoSlice::new(rest)];
            let sent = rustix::io::retry_on_intr(|| {
                rustix::net::sendmsg(socket.as_fd(), &slices, &mut control, SendFlags::NOSIGNAL)
            });
            rest = rest.get(sent.map_err(failed)?..).unwrap_or_default();
            control.clear();
        }
        Ok(())
    }
}

/// Major and minor number of the running kernel.
fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
