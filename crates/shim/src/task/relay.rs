//! A container on another shim behind ours. That shim makes and runs it; ours keeps what engines of the field's kind leave to themselves
//! and lose with the daemon: the log, attached clients, the exit status.
//!
//! ```text
//! engine ──ttrpc──> our shim ──ttrpc──> the other shim ──> container
//!                      └── Hub <──FIFO── stdout, stderr; stdin ──FIFO──> ──┘
//! <bundle>/shim/<id>/        the other shim's bundle: config.json, rootfs/, log, bootstrap.json
//! <bundle>/shim/io/          its FIFOs: <process>-<stream>
//! ```
//!
//! What it was asked for and did not answer is taken back ([`Relay::abandon`]).
//!
//! Rules of the life cycle are the other shim's: its answers are passed on with their class. Events it tells the engine itself.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_oci::runtime::User;
use berth_proto::pack_as;
use berth_proto::protobuf::well_known_types::any::Any;
use berth_rootfs::RootDir;
use berth_runtime::{Identity, resolve_user};
use berth_shim_client::{CreateTask, ExitStatus, IoUris, Reports, RootfsMount, ShimClient, ShimError, ShimOptions};
use berth_types::{ExecId, Timestamp};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::AbortHandle;

use super::machine::command;
use super::{Shim, Surroundings};
use crate::error::TaskError;
use crate::io::ProcessIo;
use crate::log;
use crate::oci::{CommandError, exec_failure};
use crate::process::{Exit, Process, Status};
use crate::reaper::ended;
use crate::record::{start_ticks, ticks_now};

const DIRECTORY: &str = "shim";
/// containerd's code of an end that nobody saw.
const UNKNOWN: u32 = 255;
const KILL: u32 = 9;
/// How long the other shim is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From its start to its container. With what is undone after it, it is less than our own caller waits: no container comes to be that nobody
    /// knows of.
    pub(super) create: Duration,
    /// For one that did not answer once: for a further answer, and for its end.
    pub(super) last_call: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { create: Duration::from_secs(75), last_call: Duration::from_secs(5) }
    }
}

/// What is needed to make one.
#[derive(Debug)]
pub(super) struct NewRelay<'a> {
    pub(super) binary: PathBuf,
    pub(super) options: Option<(String, Vec<u8>)>,
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    pub(super) config: Vec<u8>,
    pub(super) annotations: HashMap<String, String>,
    pub(super) root: RootDir,
    /// Where the root file system is mounted.
    pub(super) root_path: PathBuf,
    pub(super) surroundings: &'a Surroundings,
    pub(super) io: &'a Arc<ProcessIo>,
    pub(super) patience: Patience,
}

#[derive(Debug)]
pub(super) struct Relay {
    client: ShimClient,
    shim: ShimOptions,
    /// Of the other shim.
    pub(super) shim_pid: u32,
    /// Of the other shim, if it was started for this task: one that was there before serves others of the pod.
    own_shim: Option<OwnedFd>,
    patience: Patience,
    io_dir: PathBuf,
    root: RootDir,
    annotations: HashMap<String, String>,
    /// By process, until it was started.
    held: Mutex<HashMap<String, Held>>,
    cleaned: tokio::sync::OnceCell<ExitStatus>,
    /// Follows what the other shim says.
    log: AbortHandle,
}

/// Of the FIFOs of a process.
#[derive(Debug)]
struct Held {
    /// Ends that keep them open until the other shim has taken its own.
    _keepers: Vec<OwnedFd>,
    /// Our end of the input.
    input: Option<OwnedFd>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.log.abort();
    }
}

/// Where the other shim has its bundle. Its last component is the task's id, as some shims rely on.
pub(crate) fn inner_bundle(bundle: &Path, id: &str) -> PathBuf {
    bundle.join(DIRECTORY).join(id)
}

pub(crate) fn shim_options(
    surroundings: &Surroundings,
    binary: PathBuf,
    options: Option<(String, Vec<u8>)>,
    bundle: PathBuf,
    id: &str,
) -> Result<ShimOptions, TaskError> {
    Ok(ShimOptions {
        binary,
        namespace: surroundings.namespace.clone(),
        id: id.parse().map_err(|source| TaskError::Id { id: id.to_owned(), source })?,
        bundle,
        socket_dir: surroundings.socket_dir.clone(),
        events_address: surroundings.events_address.clone(),
        grpc_address: surroundings.grpc_address.clone(),
        runtime_options: options,
        reports: Reports::All,
        search: Vec::new(),
    })
}

impl Relay {
    /// Starts the other shim and lets it create the container; its init's pid on the host.
    pub(super) async fn create(new: NewRelay<'_>) -> Result<(Self, u32), TaskError> {
        let bundle = inner_bundle(new.bundle, new.id);
        let io_dir = new.bundle.join(DIRECTORY).join("io");
        write_bundle(&bundle, &io_dir, &new.config)?;
        let shim = shim_options(new.surroundings, new.binary, new.options.clone(), bundle.clone(), new.id)?;
        let (begun, begun_ticks) = (Instant::now(), ticks_now());
        let patience = new.patience;
        let path = bundle.join("log");
        let log = berth_shim_client::follow_log(&bundle, log::line)
            .map_err(|source| command("follow the log of", CommandError::File { what: "open", path, source }))?;
        let client = match ShimClient::start(&shim).await {
            Ok(client) => client,
            Err(source) => {
                log.abort();
                if !matches!(source, ShimError::Spawn { .. }) {
                    // It may have come up all the same, and not be understood.
                    clean_up(&shim).await;
                }
                return Err(failed("start the shim of", source));
            }
        };
        let asked = tokio::time::timeout(patience.last_call, client.shim_pid()).await;
        let shim_pid = asked.map(Result::unwrap_or_default).unwrap_or_default();
        let relay = Self {
            client,
            shim,
            shim_pid,
            own_shim: process_begun_since(shim_pid, begun_ticks),
            patience,
            io_dir,
            root: new.root,
            annotations: new.annotations,
            held: Mutex::default(),
            cleaned: tokio::sync::OnceCell::new(),
            log,
        };
        let source = new.root_path.display().to_string();
        let mount = RootfsMount {
            fstype: "bind".to_owned(),
            source,
            target: String::new(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
        };
        let created = async {
            let io = relay.fifos("init", "", new.io)?;
            let task = CreateTask { rootfs: vec![mount], io, options: new.options, ..CreateTask::default() };
            let answer = relay.client.create_task(&bundle, &task);
            let answer = tokio::time::timeout(patience.create.saturating_sub(begun.elapsed()), answer).await;
            let late = Err(ShimError::Deadline { call: "Create", seconds: patience.create.as_secs() });
            answer.unwrap_or(late).map_err(|source| failed("create", source))
        };
        match created.await {
            Ok(pid) => Ok((relay, pid)),
            Err(error) => {
                relay.abandon().await;
                Err(error)
            }
        }
    }

    /// Takes down the container and its shim, however far they came. Its agreement to end means nothing: shims of the field agree, and stay for
    /// a container whose making goes on.
    pub(super) async fn abandon(&self) {
        let last_call = self.patience.last_call;
        match &self.own_shim {
            Some(shim) => {
                let asked = async {
                    self.client.shutdown().await.ok();
                    ended(shim).await;
                };
                if tokio::time::timeout(last_call, asked).await.is_err() {
                    pidfd_send_signal(shim, Signal::KILL).ok();
                    tokio::time::timeout(last_call, ended(shim)).await.ok();
                }
            }
            // It has others, and remembers what its own clean-up removes behind it.
            None => drop(tokio::time::timeout(last_call, self.give_back()).await),
        }
        self.clean_up().await;
    }

    /// The container alone, by the other shim's own means.
    async fn give_back(&self) {
        self.client.kill_number(None, KILL, true).await.ok();
        self.client.wait(None).await.ok();
        self.client.delete(None).await.ok();
        self.client.shutdown().await.ok();
    }

    /// Has the other shim write the processes to a directory.
    pub(super) async fn checkpoint(&self, images: &Path, options: Option<Any>) -> Result<(), TaskError> {
        let options = options.map(|any| (any.type_url, any.value));
        let saved = self.client.checkpoint(&images.display().to_string(), options).await;
        saved.map_err(|source| failed("save", source))
    }

    /// Makes the FIFOs of a process and connects our ends of them.
    fn fifos(&self, name: &str, exec_id: &str, io: &ProcessIo) -> Result<IoUris, TaskError> {
        let fifos = io.fifos(&self.io_dir, name)?;
        io.connect_output(fifos.ours.stdout, fifos.ours.stderr)?;
        if fifos.input.is_none() {
            io.connect_input(None)?;
        }
        self.held().insert(exec_id.to_owned(), Held { _keepers: fifos.keepers, input: fifos.input });
        Ok(fifos.addresses)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a process run; for an added one, adds it first. Its pid on the host.
    pub(super) async fn start(&self, process: &Process) -> Result<u32, TaskError> {
        let exec_id = exec_id(&process.exec_id)?;
        let mut is_added = false;
        let started = async {
            if let (Some(exec_id), Some(plan)) = (&exec_id, process.take_plan()) {
                let json = crate::oci::process_document(&plan, &self.annotations, |user| self.identity(user));
                let json = json.map_err(|source| command("start a process in", source))?;
                let io = self.fifos(&exec_name(process), &process.exec_id, &process.io)?;
                self.client.exec(exec_id, &json, &io).await.map_err(|source| failed("add a process to", source))?;
                is_added = true;
            }
            self.client.start_process(exec_id.as_ref()).await.map_err(|source| failed("start", source))
        };
        let started = started.await;
        // The other shim holds the FIFOs now, or is about to open them by descriptors it has, or never will; those of init go with the bundle.
        let input = self.held().remove(&process.exec_id).and_then(|held| held.input);
        match input {
            Some(input) if started.is_ok() => drop(tokio::spawn(Arc::clone(&process.io).connect_when_read(input))),
            Some(_) => process.io.connect_input(None)?,
            None => {}
        }
        if exec_id.is_some() {
            crate::io::remove_fifos(&self.io_dir, &exec_name(process));
        }
        if started.is_err()
            && let Some(exec_id) = exec_id.filter(|_| is_added)
        {
            tokio::time::timeout(self.patience.last_call, self.take_back(&exec_id)).await.ok();
        }
        started
    }

    /// A process that did not start, or not in time, is nobody's: the other shim forgets it, and its name is free again.
    async fn take_back(&self, exec_id: &ExecId) {
        if self.client.delete(Some(exec_id)).await.is_err() {
            self.client.kill_number(Some(exec_id), KILL, false).await.ok();
            self.client.wait(Some(exec_id)).await.ok();
            self.client.delete(Some(exec_id)).await.ok();
        }
    }

    fn identity(&self, user: &User) -> Result<Identity, CommandError> {
        resolve_user(&self.root, user, &self.annotations).map_err(|source| CommandError::User { source })
    }

    /// Returns when a process has ended.
    pub(super) async fn wait(&self, process: &Process) -> Exit {
        let waited = match exec_id(&process.exec_id) {
            Ok(exec_id) => self.client.wait(exec_id.as_ref()).await,
            Err(_) => Err(ShimError::Answer { answer: String::new() }),
        };
        let status = match waited {
            Ok(status) => status,
            Err(error) => {
                log::error(&format!("the other shim: {}", berth_types::report(&error)));
                match error {
                    ShimError::Gone { .. } | ShimError::Connect { .. } => self.clean_up().await,
                    // It lives, and so may its container: this one process alone is lost sight of.
                    _ => ExitStatus { code: UNKNOWN, exited_at: Timestamp::now() },
                }
            }
        };
        self.held().remove(&process.exec_id);
        Exit { code: status.code, at: status.exited_at, note: None }
    }

    /// Tells the other shim when the last client's input has ended.
    pub(super) async fn follow_input(self: Arc<Self>, process: Arc<Process>) {
        process.io.input_closed().await;
        if let Ok(exec_id) = exec_id(&process.exec_id) {
            // A process that has ended meanwhile has no input either.
            self.client.close_io(exec_id.as_ref()).await.ok();
        }
    }

    pub(super) async fn kill(&self, exec: &str, signal: u32, all: bool) -> Result<(), TaskError> {
        let exec_id = exec_id(exec)?;
        self.client.kill_number(exec_id.as_ref(), signal, all).await.map_err(|source| failed("signal", source))
    }

    pub(super) async fn pause(&self) -> Result<(), TaskError> {
        self.client.pause().await.map_err(|source| failed("pause", source))
    }

    pub(super) async fn resume(&self) -> Result<(), TaskError> {
        self.client.resume().await.map_err(|source| failed("resume", source))
    }

    pub(super) async fn pids(&self) -> Result<Vec<u32>, TaskError> {
        self.client.pids().await.map_err(|source| failed("list the processes of", source))
    }

    pub(super) async fn update(&self, resources: &[u8]) -> Result<(), TaskError> {
        self.client.update(resources).await.map_err(|source| failed("set the limits of", source))
    }

    pub(super) async fn stats(&self) -> Result<Any, TaskError> {
        let (type_url, value) = self.client.stats().await.map_err(|source| failed("measure", source))?;
        Ok(pack_as(&type_url, value))
    }

    pub(super) async fn resize(&self, exec: &str, rows: u16, columns: u16) -> Result<(), TaskError> {
        let exec_id = exec_id(exec)?;
        self.client.resize_pty(exec_id.as_ref(), rows, columns).await.map_err(|source| failed("resize", source))
    }

    /// Forgets a process; with init, the container and its shim.
    pub(super) async fn delete(&self, exec: &str) -> Result<(), TaskError> {
        let exec_id = exec_id(exec)?;
        match self.client.delete(exec_id.as_ref()).await {
            Ok(_) if exec_id.is_none() => {
                // One that has ended by itself is as good.
                self.client.shutdown().await.ok();
                Ok(())
            }
            Err(ShimError::Gone { .. } | ShimError::Connect { .. }) => {
                self.clean_up().await;
                Ok(())
            }
            other => other.map(drop).map_err(|source| failed("delete", source)),
        }
    }

    /// The other shim has gone: its own clean-up, once.
    async fn clean_up(&self) -> ExitStatus {
        *self.cleaned.get_or_init(|| clean_up(&self.shim)).await
    }
}

async fn clean_up(shim: &ShimOptions) -> ExitStatus {
    ShimClient::delete_dead(shim).await.unwrap_or_else(|error| {
        log::warn(&format!("cleaning up after the other shim: {}", berth_types::report(&error)));
        ExitStatus::killed()
    })
}

/// `None`: it cannot be told, there is none, or it was there before.
fn process_begun_since(pid: u32, ticks: Option<u64>) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    (start_ticks(pid)? >= ticks?).then_some(pidfd)
}

impl Shim {
    /// Follows a started process of another shim to its end.
    pub(super) fn follow_relayed(self: &Arc<Self>, relay: &Arc<Relay>, process: &Arc<Process>) {
        let (shim, behind, ended) = (Arc::clone(self), Arc::clone(relay), Arc::clone(process));
        let is_init = process.exec_id.is_empty();
        tokio::spawn(async move {
            let exited = {
                let (behind, ended) = (Arc::clone(&behind), Arc::clone(&ended));
                async move { behind.wait(&ended).await }
            };
            if is_init { shim.init_ends(ended, exited).await } else { shim.exec_ends(ended, exited).await }
        });
    }

    /// A signal to a process of another shim; one that has ended is not asked about.
    pub(super) async fn kill_relayed(
        &self,
        relay: &Relay,
        process: &Process,
        signal: u32,
        all: bool,
    ) -> Result<(), TaskError> {
        if let Status::Exited(_) = process.status() {
            return Err(TaskError::Ended { id: process.task_id.clone(), exec_id: process.exec_id.clone() });
        }
        relay.kill(&process.exec_id, signal, all).await
    }
}

/// Of the FIFOs of an added process.
fn exec_name(process: &Process) -> String {
    format!("exec-{}", process.exec_id)
}

fn exec_id(text: &str) -> Result<Option<ExecId>, TaskError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|source| TaskError::Id { id: text.to_owned(), source })
}

fn failed(operation: &'static str, source: ShimError) -> TaskError {
    let class = match &source {
        ShimError::Remote { message, .. } => exec_failure(message),
        _ => None,
    };
    match class {
        Some(class) => TaskError::OtherExec { class, source: source.into() },
        None => TaskError::Relay { operation, source },
    }
}

fn write_bundle(bundle: &Path, io_dir: &Path, config: &[u8]) -> Result<(), TaskError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let wrong = |what, path: &Path| {
        let path = path.to_owned();
        move |source| CommandError::File { what, path, source }
    };
    let make = |path: &Path| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(wrong("make", path));
        made.map_err(|source| command("make the bundle of", source))
    };
    make(&bundle.join("rootfs"))?;
    make(io_dir)?;
    let path = bundle.join("config.json");
    std::fs::write(&path, config).map_err(wrong("write", &path)).map_err(|source| command("make the bundle of", source))
}

#[cfg(test)]
mod tests;
