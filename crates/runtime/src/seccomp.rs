//! The filter of a container: the engine's ready program, or the spec's profile compiled here; and the way of its listener to the agent
//! that answers `SCMP_ACT_NOTIFY`.
//!
//! # Spec
//! runtime-spec config-linux, "Seccomp" and "The Container Process State".

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    /// The engine's program wins over the spec's profile; without either there is no filter. `cache`: see [`crate::Tuning`].
    pub(crate) fn new(
        ready: Option<&[u8]>,
        spec: Option<&LinuxSeccomp>,
        capabilities: &[String],
        cache: Option<&Path>,
    ) -> Result<Option<Self>, RuntimeError> {
        match (ready, spec) {
            (Some(bytes), _) => {
                let program = Program::from_bytes(bytes)?.to_bytes();
                Ok(Some(Self { program, flags: FilterFlags::default(), agent: None }))
            }
            (None, Some(spec)) => Self::compile(spec, capabilities, cache).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn compile(spec: &LinuxSeccomp, capabilities: &[String], cache: Option<&Path>) -> Result<Self, RuntimeError> {
        check(spec)?;
        let wrong = |problem: String| RuntimeError::Spec { field: "linux.seccomp", problem };
        // Both crates describe the same document of the runtime specification.
        let json = serde_json::to_vec(spec).map_err(|error| wrong(error.to_string()))?;
        let cached = cache.map(|directory| Cached::of(directory, &json, capabilities));
        if let Some(filter) = cached.as_ref().and_then(Cached::load) {
            return Ok(filter);
        }
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
            // Where nothing is said, as runc and as kernels since 5.16 by themselves.
            spec_allow: filter.flags.spec_allow || spec.flags().is_none(),
            // About notifications only: the kernel refuses it without a listener.
            wait_kill_recv: filter.flags.wait_kill_recv && notifies,
            // Who loads it has one thread.
            thread_sync: false,
        };
        let compiled = Self { program: filter.compile()?.to_bytes(), flags, agent };
        if let Some(cached) = cached {
            cached.store(&compiled);
        }
        Ok(compiled)
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

    /// What seccomp(2) is given: the profile's flags, and the one for a listener.
    pub(crate) fn flags(&self) -> u32 {
        let FilterFlags { log, spec_allow, wait_kill_recv, thread_sync } = self.flags;
        let bits = [(thread_sync, 1), (log, 2), (spec_allow, 4), (self.agent.is_some(), 8), (wait_kill_recv, 32)];
        bits.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
    }

    pub(crate) fn load(&self) -> Result<(), Errno> {
        berth_sys::seccomp::load_filter(&self.program, self.flags)
    }

    pub(crate) fn load_with_listener(&self) -> Result<OwnedFd, Errno> {
        berth_sys::seccomp::load_filter_with_listener(&self.program, self.flags)
    }
}

/// A compiled filter on disk, by the hash of what it was compiled from. The whole source stands in the file as well and is compared,
/// so a collision is a miss. The directory is the runtime's own (0700); what cannot be read or written costs a compilation.
struct Cached {
    path: PathBuf,
    key: Vec<u8>,
}

/// More files than profiles anybody uses; then the cache begins anew.
const CACHED_MAX: usize = 64;
const CACHED_BYTES_MAX: u64 = 1 << 20;

impl Cached {
    fn of(directory: &Path, profile: &[u8], capabilities: &[String]) -> Self {
        let (major, minor) = kernel_version();
        let conditions = format!("\0{}\0{major}.{minor}\0{}\0", capabilities.join(","), env!("CARGO_PKG_VERSION"));
        let key = [profile, conditions.as_bytes()].concat();
        // FNV-1a: a name, no more.
        let hash = key
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Self { path: directory.join(format!("{hash:016x}.filter")), key }
    }

    fn load(&self) -> Option<Filter> {
        let bytes = crate::record::read_bounded(&self.path, CACHED_BYTES_MAX).ok()?;
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (key, filter) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if key == self.key { Filter::from_bytes(filter).ok() } else { None }
    }

    fn store(&self, filter: &Filter) {
        let Ok(length) = u32::try_from(self.key.len()) else { return };
        let bytes = [&length.to_le_bytes(), self.key.as_slice(), &filter.to_bytes()].concat();
        let _not_kept = self.write(&bytes);
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(directory)?;
        if std::fs::read_dir(directory)?.count() >= CACHED_MAX {
            for entry in std::fs::read_dir(directory)?.flatten() {
                std::fs::remove_file(entry.path())?;
            }
        }
        // By rename: another command may read meanwhile.
        let temporary = self.path.with_extension(std::process::id().to_string());
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        std::io::Write::write_all(&mut options.open(&temporary)?, bytes)?;
        std::fs::rename(&temporary, &self.path)
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
        let failed = |source| RuntimeError::Kernel {
            what: "hand over the seccomp listener: failed to connect with seccomp agent",
            source,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(errno: u32) -> LinuxSeccomp {
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_profile_is_compiled_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("filters");
        let files = || std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let new = |errno, capabilities: &[&str]| {
            let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
            Filter::new(None, Some(&spec(errno)), &capabilities, Some(&cache)).unwrap().unwrap().to_bytes()
        };
        let first = new(5, &[]);
        assert_eq!(files().len(), 1);
        assert_eq!(new(5, &[]), first);
        // Another profile and other capabilities are others.
        assert_ne!(new(6, &[]), first);
        new(5, &["CAP_SYS_ADMIN"]);
        assert_eq!(files().len(), 3);
        // What is not what was asked for, or is damaged, is a miss, and is made anew.
        for damage in [&b""[..], b"xxxx", &[0xff; 64]] {
            files().iter().for_each(|file| std::fs::write(file, damage).unwrap());
            assert_eq!(new(5, &[]), first);
        }
        for errno in 100..100 + u32::try_from(CACHED_MAX).unwrap() {
            new(errno, &[]);
        }
        assert!(files().len() <= CACHED_MAX, "{}", files().len());
    }
}
