//! A container that another OCI runtime makes: its command line is driven as the specification and runc have it
//! (`create`, `start`, `exec`, `kill`, `pause`, `resume`, `update`, `ps`, `events`, `delete`).
//!
//! ```text
//! <bundle>/oci/   0700
//!   config.json   the container's document, without what only our own runtime understands
//!   state/        the runtime's `--root`, unless the options name another
//!   log.json-N, process.json-N, pid-N, console-N   of one call, while it is under way
//! ```
//!
//! The shim is the subreaper of what the commands leave behind, so it collects exit statuses itself. Each command has a deadline; while it runs
//! everybody else is served, hooks that call back included.

mod command;
mod console;
mod document;
mod measure;
mod null;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Layout, Membership};
use berth_oci::runtime::{self, LinuxResources};
use berth_rootfs::RootDir;
use berth_runtime::{Identity, Process, Stdio, resolve_user};
use rustix::process::{Pid, PidfdFlags};

pub(crate) use command::{CommandError, OciRuntime, Place, exec_failure};
use command::{Patience, Streams, in_file};
use console::ConsoleSocket;
pub(crate) use document::{Document, process as process_document, rewrite};

const DIRECTORY: &str = "oci";
const STATE: &str = "state";

/// What is needed to make one.
#[derive(Debug)]
pub(crate) struct NewContainer<'a> {
    pub(crate) runtime: OciRuntime,
    pub(crate) id: &'a str,
    pub(crate) place: Place,
    pub(crate) document: Document,
    pub(crate) root: RootDir,
    pub(crate) stdio: Stdio,
    /// Of `create`.
    pub(crate) flags: Vec<&'static str>,
}

#[derive(Debug)]
pub(crate) struct OciContainer {
    pub(crate) runtime: OciRuntime,
    /// Of init.
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    id: String,
    place: Place,
    root: RootDir,
    annotations: HashMap<String, String>,
    cgroup: Option<Cgroup>,
}

/// The directory for the runtime's documents and state.
pub(crate) fn make_directory(bundle: &Path) -> Result<PathBuf, CommandError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = bundle.join(DIRECTORY);
    let state = directory.join(STATE);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(|source| CommandError::File {
        what: "make",
        path: state,
        source,
    })?;
    Ok(directory)
}

/// Where the runtime keeps its state when nobody names another place.
pub(crate) fn state_directory(bundle: &Path) -> PathBuf {
    bundle.join(DIRECTORY).join(STATE)
}

impl OciContainer {
    /// Runs `create`, with the master of a terminal if there is one; on failure nothing of it remains.
    pub(crate) async fn create(new: NewContainer<'_>) -> Result<(Self, Option<OwnedFd>), CommandError> {
        let NewContainer { runtime, id, place, document, root, stdio, flags } = new;
        in_file(&place.directory.join("config.json"), &document.json)?;
        let mut words = vec!["create".to_owned(), "--bundle".to_owned(), place.directory.display().to_string()];
        words.extend(flags.into_iter().map(str::to_owned));
        let init = match spawn(&runtime, &place, words, id, stdio).await {
            Ok(init) => init,
            Err(error) => {
                delete_forced(&runtime, id, &place).await;
                return Err(error);
            }
        };
        let cgroup = cgroup_of(init.pid);
        let container = Self {
            runtime,
            pid: init.pid,
            pidfd: init.pidfd,
            id: id.to_owned(),
            place,
            root,
            annotations: document.annotations,
            cgroup,
        };
        Ok((container, init.console))
    }

    pub(crate) async fn start(&self) -> Result<(), CommandError> {
        self.run(&["start", &self.id], Patience::Hooks).await.map(drop)
    }

    pub(crate) async fn pause(&self) -> Result<(), CommandError> {
        self.run(&["pause", &self.id], Patience::Plain).await.map(drop)
    }

    pub(crate) async fn resume(&self) -> Result<(), CommandError> {
        self.run(&["resume", &self.id], Patience::Plain).await.map(drop)
    }

    async fn run(&self, words: &[&str], patience: Patience) -> Result<Vec<u8>, CommandError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.runtime.run(&self.place, &words, Streams::None, patience).await
    }

    /// Starts a further process.
    pub(crate) async fn exec(&self, plan: &runtime::Process, stdio: Stdio) -> Result<Process, CommandError> {
        let json = document::process(plan, &self.annotations, |user| self.identity(user))?;
        let file = self.place.file("process.json");
        in_file(file.path(), &json)?;
        let words = ["exec", "--detach", "--process", &file.text()].map(str::to_owned);
        spawn(&self.runtime, &self.place, words.to_vec(), &self.id, stdio).await
    }

    fn identity(&self, user: &runtime::User) -> Result<Identity, CommandError> {
        resolve_user(&self.root, user, &self.annotations).map_err(|source| CommandError::User { source })
    }

    /// To init; `is_for_all`: to every process of the container.
    pub(crate) async fn kill(&self, signal: i32, is_for_all: bool) -> Result<(), CommandError> {
        let number = signal.to_string();
        let all: &[&str] = if is_for_all { &["--all"] } else { &[] };
        self.run(&[&["kill"], all, &[&self.id, &number]].concat(), Patience::Plain).await.map(drop)
    }

    pub(crate) async fn update(&self, resources: &LinuxResources) -> Result<(), CommandError> {
        let file = self.place.file("resources.json");
        let json = serde_json::to_vec(resources).map_err(|source| CommandError::Document { what: "limits", source })?;
        in_file(file.path(), &json)?;
        self.run(&["update", "--resources", &file.text(), &self.id], Patience::Plain).await.map(drop)
    }

    /// Writes the processes to a directory; `flags` as the runtime's command line has them.
    pub(crate) async fn checkpoint(&self, images: &Path, flags: &[&str]) -> Result<(), CommandError> {
        let images = images.display().to_string();
        let words = [&["checkpoint", "--image-path", &images], flags, &[&self.id]].concat();
        self.run(&words, Patience::Hooks).await.map(drop)
    }

    /// As the runtime lists them; where it cannot, or counts by a kernel of its own, as the host does.
    pub(crate) async fn pids(&self) -> Result<Vec<u32>, CommandError> {
        let listed = self.run(&["ps", "--format", "json", &self.id], Patience::Plain).await;
        let listed: Vec<u32> = listed.and_then(|json| self.runtime.parse("ps", &json)).unwrap_or_default();
        match &self.cgroup {
            _ if listed.contains(&self.pid) => Ok(listed),
            Some(group) => pids_of(group),
            None => Ok(vec![self.pid]),
        }
    }

    /// From the kernel's files; of a container without a cgroup on the host, as the runtime measures it.
    pub(crate) async fn stats(&self) -> Result<berth_cgroup::Stats, CommandError> {
        match &self.cgroup {
            Some(group) => group.stats().map_err(|source| CommandError::Cgroup { source: source.into() }),
            None => {
                let measured = self.run(&["events", "--stats", &self.id], Patience::Plain).await?;
                measure::stats(&self.runtime, &measured)
            }
        }
    }

    pub(crate) const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    pub(crate) async fn delete(&self) -> Result<(), CommandError> {
        let mut deleted = self.run(&["delete", &self.id], Patience::Hooks).await;
        if deleted.is_err() {
            deleted = self.run(&["delete", "--force", &self.id], Patience::Undo).await;
        }
        if deleted.is_ok() {
            remove_state(&self.runtime, &self.place.directory);
        }
        deleted.map(drop)
    }
}

fn pids_of(group: &Cgroup) -> Result<Vec<u32>, CommandError> {
    let pids = group.pids().map_err(|source| CommandError::Cgroup { source: source.into() })?;
    Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect())
}

/// What is left of a container whose shim is dead, or that could not be made.
pub(crate) async fn delete_forced(runtime: &OciRuntime, id: &str, place: &Place) {
    let words = ["delete", "--force", id].map(str::to_owned);
    if let Err(error) = runtime.run(place, &words, Streams::None, Patience::Undo).await {
        // It may have made nothing at all.
        crate::log::warn(&berth_types::report(&error));
    }
    remove_state(runtime, &place.directory);
}

/// Only what is ours: a root that somebody named holds other containers, too.
fn remove_state(runtime: &OciRuntime, directory: &Path) {
    if runtime.root == directory.join(STATE) {
        std::fs::remove_dir_all(&runtime.root).ok();
    }
}

/// Runs a command that leaves a process behind, and finds that process.
async fn spawn(
    runtime: &OciRuntime,
    place: &Place,
    mut words: Vec<String>,
    id: &str,
    stdio: Stdio,
) -> Result<Process, CommandError> {
    let pid_file = place.file("pid");
    words.extend(["--pid-file".to_owned(), pid_file.text()]);
    let (streams, console) = match stdio {
        Stdio::Fds { stdin, stdout, stderr } => (Streams::Of([stdin, stdout, stderr]), None),
        // How newlines are kept is a question of a person's command line alone.
        Stdio::Terminal { rows, columns, .. } => {
            let file = place.file("console");
            let socket = ConsoleSocket::bind(&place.directory, file)?;
            words.extend(["--console-socket".to_owned(), socket.path()]);
            (Streams::None, Some((socket, rows, columns)))
        }
    };
    words.push(id.to_owned());
    runtime.run(place, &words, streams, Patience::Hooks).await?;
    let console = console.map(|(socket, rows, columns)| socket.receive(rows, columns)).transpose()?;
    let pid = command::read_pid(pid_file.path())?;
    Ok(Process { pid, pidfd: open_pidfd(pid)?, console })
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, CommandError> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(CommandError::Pid { pid })?;
    rustix::process::pidfd_open(number, PidfdFlags::empty()).map_err(|errno| CommandError::File {
        what: "watch",
        path: format!("/proc/{pid}").into(),
        source: errno.into(),
    })
}

/// The group the runtime put it into; none where it made none (then it is in ours, which is not its own).
fn cgroup_of(pid: u32) -> Option<Cgroup> {
    let layout = Layout::detect().ok()?;
    Cgroup::open(&layout, &cgroup_path_of(pid)?).ok()
}

pub(crate) fn cgroup_path_of(pid: u32) -> Option<String> {
    let group = |pid: Option<u32>| Membership::of(pid).ok()?.main().map(str::to_owned);
    let path = group(Some(pid))?;
    (Some(&path) != group(None).as_ref()).then_some(path)
}
