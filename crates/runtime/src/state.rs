//! The state of a container as the specification shows it, and a directory in which it outlives the process that made it.
//!
//! ```text
//! <root>/<id>/          0700; its creation is what makes an id taken
//!     state.json        version 2, see `record::Record`; written by rename
//!     seccomp.bpf       the compiled filter with its flags, for processes that join; only where there is one
//!     start.sock        where a created init waits (SOCK_SEQPACKET); gone after start
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_types::{ContainerId, ErrorClass};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::RuntimeError;
use crate::record::{Record, read_record};
use crate::seccomp::Filter;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn text(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The document hooks read and `state` prints.
///
/// # Spec
/// runtime-spec runtime, "State".
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    pub oci_version: String,
    pub id: String,
    pub status: Status,
    #[serde(default)]
    pub pid: u32,
    pub bundle: PathBuf,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// The specification version we follow.
pub const OCI_VERSION: &str = "1.3.0";

impl ContainerState {
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The directory of one container's state.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    id: ContainerId,
}

impl StateDir {
    /// Takes an id: its directory must not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists`; the file system's.
    pub fn create(root: &Path, id: &ContainerId) -> Result<Self, RuntimeError> {
        let this = Self { path: root.join(id.as_str()), id: id.clone() };
        for (path, is_root) in [(root, true), (this.path.as_path(), false)] {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            match builder.recursive(is_root).create(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(this.problem("already exists", ErrorClass::AlreadyExists));
                }
                Err(source) => return Err(file_error("make", path, source)),
            }
        }
        Ok(this)
    }

    /// # Errors
    /// `NotFound`.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self, RuntimeError> {
        let this = Self { path: root.join(id.as_str()), id: id.clone() };
        if this.path.is_dir() { Ok(this) } else { Err(this.problem("does not exist", ErrorClass::NotFound)) }
    }

    /// Ids of all containers below a root, sorted.
    ///
    /// # Errors
    /// The file system's; a missing root is empty.
    pub fn list(root: &Path) -> Result<Vec<ContainerId>, RuntimeError> {
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(file_error("read", root, source)),
        };
        let id = |name: &str| ContainerId::of_runtime(name).ok();
        let mut ids: Vec<ContainerId> = entries.filter_map(|entry| id(entry.ok()?.file_name().to_str()?)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// A listening socket for [`crate::Tuning::start_listener`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn start_listener(&self) -> Result<OwnedFd, RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "listen for the start of the container", source };
        let socket = socket().map_err(kernel)?;
        let (_directory, address) = self.address().map_err(kernel)?;
        rustix::net::bind(&socket, &address).map_err(kernel)?;
        rustix::net::listen(&socket, 1).map_err(kernel)?;
        Ok(socket)
    }

    /// Connects to a waiting init.
    pub(crate) fn connect(&self) -> Result<OwnedFd, rustix::io::Errno> {
        let socket = socket()?;
        let (_directory, address) = self.address()?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket)
    }

    /// Whether init still waits for its start.
    pub(crate) fn awaits_start(&self) -> bool {
        self.path.join("start.sock").exists()
    }

    pub(crate) fn forget_start(&self) {
        let _gone = rustix::fs::unlink(self.path.join("start.sock"));
    }

    /// Socket names are short; `/proc/self/fd` keeps ours so, however deep the directory is.
    fn address(&self) -> Result<(OwnedFd, SocketAddrUnix), rustix::io::Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{number}/start.sock"))?;
        Ok((directory, address))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), RuntimeError> {
        let text = serde_json::to_vec(record).map_err(|error| RuntimeError::BadState {
            path: self.file("state.json").display().to_string(),
            problem: error.to_string(),
        })?;
        self.replace("state.json", &text)
    }

    /// Writes a file beside its name and renames it: a reader sees the old one or the new one.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), RuntimeError> {
        let (target, temporary) = (self.file(name), self.file(&format!("{name}.new")));
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut write = || {
            let mut file = options.write(true).create(true).truncate(true).open(&temporary)?;
            file.write_all(content)?;
            std::fs::rename(&temporary, &target)
        };
        write().map_err(|source| file_error("write", &target, source))
    }

    pub(crate) fn load(&self) -> Result<Record, RuntimeError> {
        let path = self.file("state.json");
        match read_record(&path) {
            Ok(text) => Record::parse(&text, &path, self),
            Err(RuntimeError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(self.problem("is being created, or its creation was interrupted", ErrorClass::FailedPrecondition))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save_filter(&self, filter: &Filter) -> Result<(), RuntimeError> {
        self.replace("seccomp.bpf", &filter.to_bytes())
    }

    pub(crate) fn load_filter(&self) -> Result<Option<Filter>, RuntimeError> {
        let path = self.file("seccomp.bpf");
        match read_record(&path) {
            Ok(bytes) => Filter::from_bytes(&bytes)
                .map(Some)
                .map_err(|problem| RuntimeError::BadState { path: path.display().to_string(), problem }),
            Err(RuntimeError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the id back.
    ///
    /// # Errors
    /// The file system's; a directory that is gone is fine.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        match std::fs::remove_dir_all(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(file_error("remove", &self.path, source)),
        }
    }

    fn problem(&self, problem: &'static str, class: ErrorClass) -> RuntimeError {
        RuntimeError::Container { id: self.id.to_string(), problem, class }
    }
}

fn socket() -> Result<OwnedFd, rustix::io::Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

pub(crate) fn file_error(what: &'static str, path: &Path, source: std::io::Error) -> RuntimeError {
    RuntimeError::File { what, path: path.display().to_string(), source }
}

/// Start time of a process, to tell it from a later one with the same pid; `None` when it is gone.
pub(crate) fn process_start(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name (field 2) may hold anything, also brackets: count from the last one.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}
