//! A container that another OCI runtime makes: its command line is driven as the specification and runc have it
//! (`create`, `start`, `exec`, `kill`, `pause`, `resume`, `update`, `ps`, `events`, `delete`).
//!
//! ```text
//! <bundle>/oci/   0700
//!   config.json   the container's document, without what only our own runtime understands
//!   state/        the runtime's `--root`, unless the options name another
//!   log.json      what the last command had to say
//!   process.json  the process of the exec being started
//! ```
//!
//! The shim is the subreaper of what the commands leave behind, so it collects exit statuses itself. Commands are short and run one after
//! the other; each has a deadline.

mod command;
mod console;
mod document;
mod measure;
mod null;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::{self, LinuxResources};
use berth_rootfs::RootDir;
use berth_runtime::{Identity, Process, Stdio, resolve_user};
use rustix::process::{Pid, PidfdFlags};

pub(crate) use command::{CommandError, OciRuntime, exec_failure};
use command::{Streams, in_file};
use console::ConsoleSocket;
pub(crate) use document::{Document, process as process_document, rewrite};

const DIRECTORY: &str = "oci";
const STATE: &str = "state";

/// What is needed to make one.
#[derive(Debug)]
pub(crate) struct NewContainer<'a> {
    pub(crate) runtime: OciRuntime,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) document: Document,
    pub(crate) root: RootDir,
    pub(crate) stdio: Stdio,
}

#[derive(Debug)]
pub(crate) struct OciContainer {
    pub(crate) runtime: OciRuntime,
    pub(crate) init: Process,
    id: String,
    directory: PathBuf,
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
    /// Runs `create`; on failure nothing of it remains.
    pub(crate) fn create(new: NewContainer<'_>) -> Result<Self, CommandError> {
        let directory = make_directory(new.bundle)?;
        in_file(&directory.join("config.json"), &new.document.json)?;
        let pid_file = directory.join("init.pid");
        let mut words = vec!["create".to_owned(), "--bundle".to_owned(), directory.display().to_string()];
        words.extend(["--pid-file".to_owned(), pid_file.display().to_string()]);
        let init = spawn(&new.runtime, &directory, words, new.id, new.stdio, &pid_file)
            .inspect_err(|_| delete_forced(&new.runtime, new.id, &directory))?;
        let cgroup = cgroup_of(init.pid);
        Ok(Self {
            runtime: new.runtime,
            init,
            id: new.id.to_owned(),
            directory,
            root: new.root,
            annotations: new.document.annotations,
            cgroup,
        })
    }

    pub(crate) fn start(&self) -> Result<(), CommandError> {
        self.simple("start")
    }

    pub(crate) fn pause(&self) -> Result<(), CommandError> {
        self.simple("pause")
    }

    pub(crate) fn resume(&self) -> Result<(), CommandError> {
        self.simple("resume")
    }

    fn simple(&self, verb: &'static str) -> Result<(), CommandError> {
        self.run(&[verb, &self.id]).map(drop)
    }

    fn run(&self, words: &[&str]) -> Result<Vec<u8>, CommandError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.runtime.run(&self.directory, &words, Streams::None)
    }

    /// Starts a further process.
    pub(crate) fn exec(&self, plan: &runtime::Process, stdio: Stdio) -> Result<Process, CommandError> {
        let json = document::process(plan, &self.annotations, |user| self.identity(user))?;
        let process_file = self.directory.join("process.json");
        in_file(&process_file, &json)?;
        let pid_file = self.directory.join("exec.pid");
        let words = ["exec", "--detach", "--process", &process_file.display().to_string()].map(str::to_owned);
        let pid = ["--pid-file".to_owned(), pid_file.display().to_string()];
        spawn(&self.runtime, &self.directory, [words.as_slice(), &pid].concat(), &self.id, stdio, &pid_file)
    }

    fn identity(&self, user: &runtime::User) -> Result<Identity, CommandError> {
        resolve_user(&self.root, user, &self.annotations).map_err(|source| CommandError::User { source })
    }

    /// To init; `is_for_all`: to every process of the container.
    pub(crate) fn kill(&self, signal: i32, is_for_all: bool) -> Result<(), CommandError> {
        let number = signal.to_string();
        if is_for_all {
            self.run(&["kill", "--all", &self.id, &number])
        } else {
            self.run(&["kill", &self.id, &number])
        }
        .map(drop)
    }

    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), CommandError> {
        let file = self.directory.join("resources.json");
        let json = serde_json::to_vec(resources).map_err(|source| CommandError::Document { what: "limits", source })?;
        in_file(&file, &json)?;
        self.run(&["update", "--resources", &file.display().to_string(), &self.id]).map(drop)
    }

    /// As the runtime lists them; where it cannot, or counts by a kernel of its own, as the host does.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, CommandError> {
        let listed = self.run(&["ps", "--format", "json", &self.id]);
        let listed: Vec<u32> = listed.and_then(|json| self.runtime.parse("ps", &json)).unwrap_or_default();
        match &self.cgroup {
            _ if listed.contains(&self.init.pid) => Ok(listed),
            Some(group) => pids_of(group),
            None => Ok(vec![self.init.pid]),
        }
    }

    /// From the kernel's files; of a container without a cgroup on the host, as the runtime measures it.
    pub(crate) fn stats(&self) -> Result<berth_cgroup::Stats, CommandError> {
        match &self.cgroup {
            Some(group) => group.stats().map_err(|source| CommandError::Cgroup { source: source.into() }),
            None => measure::stats(&self.runtime, &self.run(&["events", "--stats", &self.id])?),
        }
    }

    pub(crate) const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    pub(crate) fn delete(&self) -> Result<(), CommandError> {
        let deleted = self.simple("delete").or_else(|_| self.run(&["delete", "--force", &self.id]).map(drop));
        if deleted.is_ok() {
            remove_state(&self.runtime, &self.directory);
        }
        deleted
    }
}

fn pids_of(group: &Cgroup) -> Result<Vec<u32>, CommandError> {
    let pids = group.pids().map_err(|source| CommandError::Cgroup { source: source.into() })?;
    Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect())
}

/// What is left of a container whose shim is dead.
pub(crate) fn delete_forced(runtime: &OciRuntime, id: &str, directory: &Path) {
    let words = ["delete", "--force", id].map(str::to_owned);
    if let Err(error) = runtime.run(directory, &words, Streams::None) {
        // It may have made nothing at all.
        crate::log::warn(&berth_types::report(&error));
    }
    remove_state(runtime, directory);
}

/// Only what is ours: a root that somebody named holds other containers, too.
fn remove_state(runtime: &OciRuntime, directory: &Path) {
    if runtime.root == directory.join(STATE) {
        std::fs::remove_dir_all(&runtime.root).ok();
    }
}

/// Runs a command that leaves a process behind, and finds that process.
fn spawn(
    runtime: &OciRuntime,
    directory: &Path,
    mut words: Vec<String>,
    id: &str,
    stdio: Stdio,
    pid_file: &Path,
) -> Result<Process, CommandError> {
    std::fs::remove_file(pid_file).ok();
    let (streams, console) = match stdio {
        Stdio::Fds { stdin, stdout, stderr } => (Streams::Of([stdin, stdout, stderr]), None),
        // How newlines are kept is a question of a person's command line alone.
        Stdio::Terminal { rows, columns, .. } => {
            let socket = ConsoleSocket::bind(directory)?;
            words.extend(["--console-socket".to_owned(), socket.path().to_owned()]);
            (Streams::None, Some((socket, rows, columns)))
        }
    };
    words.push(id.to_owned());
    runtime.run(directory, &words, streams)?;
    let console = console.map(|(socket, rows, columns)| socket.receive(rows, columns)).transpose()?;
    let pid = command::read_pid(pid_file)?;
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
    let path = membership(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
    let own = membership(&std::fs::read_to_string("/proc/self/cgroup").ok()?);
    (Some(&path) != own.as_ref()).then_some(path)
}

/// v1: where memory, processes or processor time are counted; v2: the one place.
fn membership(text: &str) -> Option<String> {
    let find = |controller: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            controllers.split(',').any(|name| name == controller).then(|| fields.next().map(str::to_owned)).flatten()
        })
    };
    ["memory", "pids", "cpu", ""].into_iter().find_map(find)
}

#[cfg(test)]
mod tests {
    use super::membership;

    #[test]
    fn groups_of_both_versions() {
        let v1 = "5:cpu,cpuacct:/x\n4:memory:/a/b:c\n0::/init\n";
        assert_eq!(membership(v1).as_deref(), Some("/a/b:c"));
        assert_eq!(membership("3:cpu,cpuacct:/x\n0::/\n").as_deref(), Some("/x"));
        assert_eq!(membership("0::/berth/1\n").as_deref(), Some("/berth/1"));
        assert_eq!(membership(""), None);
    }
}
