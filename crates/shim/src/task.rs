//! The tasks of this shim: their containers, the processes in them, and the rules of what may be done when. One task, or those of one pod.

mod checkpoint;
mod create;
mod elsewhere;
mod end;
mod exec;
mod machine;
mod options;
pub(crate) mod relay;
mod restore;
mod rootfs;
mod start;
mod trace;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::runtime::LinuxResources;
use berth_proto::attach::{Reply, Request};
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::RuntimeError;
use berth_sys::signal_fd::SignalFd;
use berth_types::{Classify, ErrorClass, Signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) use create::{CONFIG_BYTES_MAX, CreateRequest, read_bounded};
pub(crate) use exec::ExecRequest;
pub(crate) use options::Options;

use crate::error::TaskError;
use crate::events::Publisher;
use crate::io::{OpenOutlets, Owner};
use crate::mounts::PrivateMounts;
use crate::process::{Process, Status};
use crate::reaper::{self, Holds};
use crate::sandbox::Sandbox;
use elsewhere::Elsewhere;
use machine::Machine;
use relay::Relay;
use trace::Trace;

/// What the shim was told of the world it lives in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub(crate) namespace: String,
    /// Where events go; empty: nowhere.
    pub(crate) events_address: PathBuf,
    pub(crate) grpc_address: PathBuf,
    pub(crate) socket_dir: PathBuf,
    /// Where runtimes named without a path are looked for.
    pub(crate) search: Vec<PathBuf>,
}

/// Everything this process is about.
#[derive(Debug)]
pub(crate) struct Shim {
    /// The task it was started for.
    id: String,
    /// Set: it takes further tasks of the same pod.
    group: Option<String>,
    /// The score the container's processes get when their document names none; `None`: inherited.
    oom_score: Option<i32>,
    tasks: Mutex<BTreeMap<String, Task>>,
    /// Ids of tasks that are being made.
    creating: Mutex<BTreeSet<String>>,
    /// Told when there is one less of these.
    made: Notify,
    sandbox: Mutex<Option<Sandbox>>,
    pub(crate) surroundings: Surroundings,
    mounts: PrivateMounts,
    /// Orphans of containers come to us.
    is_reaper: AtomicBool,
    pub(crate) holds: Arc<Holds>,
    /// criu saves one at a time: it traces what it saves.
    saving: tokio::sync::Mutex<()>,
    pub(crate) events: Arc<Publisher>,
    pub(crate) outlets: Arc<OpenOutlets>,
    /// Sockets that are ours until we end.
    addresses: Mutex<Vec<PathBuf>>,
    shutdown: Notify,
}

#[derive(Debug)]
struct Task {
    bundle: PathBuf,
    machine: Machine,
    init: Arc<Process>,
    execs: HashMap<String, Arc<Process>>,
    is_paused: bool,
    /// The container's processes are seen by, and may outlive, its init.
    shares_pid_ns: bool,
    /// What its document says, for processes added later.
    oom_score: Option<i32>,
    /// Of the pipes of all its processes.
    io_owner: Owner,
    oom_watch: Option<JoinHandle<()>>,
    /// Where clients attach.
    attach_job: Option<JoinHandle<()>>,
    /// How many of the kernel's kills for lack of memory have been told.
    oom_kills_told: u64,
    trace: Trace,
}

impl Shim {
    pub(crate) fn new(
        id: String,
        group: Option<String>,
        oom_score: Option<i32>,
        surroundings: Surroundings,
        events: Arc<Publisher>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            group,
            oom_score,
            tasks: Mutex::default(),
            creating: Mutex::default(),
            made: Notify::new(),
            sandbox: Mutex::default(),
            surroundings,
            mounts: PrivateMounts::default(),
            is_reaper: AtomicBool::new(false),
            holds: Arc::default(),
            saving: tokio::sync::Mutex::default(),
            events,
            outlets: Arc::default(),
            addresses: Mutex::default(),
            shutdown: Notify::new(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn sandbox(&self) -> MutexGuard<'_, Option<Sandbox>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has tasks with ids other than its own, and outlives each of them.
    fn is_of_a_pod(&self) -> bool {
        self.group.is_some() || self.sandbox().is_some()
    }

    /// Whether a task is the sandbox itself, whose life nobody hears of by events.
    fn is_sandbox(&self, id: &str) -> bool {
        id == self.id && self.sandbox().is_some()
    }

    /// First processes of the tasks of these ids.
    pub(crate) fn inits(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<Process>> {
        let tasks = self.lock();
        tasks.iter().filter(|(id, _)| is_wanted(id)).map(|(_, task)| Arc::clone(&task.init)).collect()
    }

    /// Init with an empty `exec_id`.
    pub(crate) fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        self.with(id, |task| task.process(id, exec_id))
    }

    /// What `State` reports of init when it is asked for.
    pub(crate) fn is_paused(&self, id: &str) -> Result<bool, TaskError> {
        self.with(id, |task| Ok(task.is_paused))
    }

    pub(crate) fn bundle(&self, id: &str) -> Result<PathBuf, TaskError> {
        self.with(id, |task| Ok(task.bundle.clone()))
    }

    /// The other shim that has the task, if one has.
    fn relay(&self, id: &str) -> Result<Option<Arc<Relay>>, TaskError> {
        self.with(id, |task| Ok(task.machine.relay()))
    }

    /// Whom to ask for the task, if it is not in this process.
    fn elsewhere(&self, id: &str) -> Result<Option<Elsewhere>, TaskError> {
        self.with(id, |task| Ok(task.machine.elsewhere()))
    }

    pub(crate) async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<(), TaskError> {
        let invalid = || TaskError::Argument { what: "signal", value: signal.to_string() };
        let number = i32::try_from(signal).ok().and_then(|n| Signal::new(n).ok()).ok_or_else(invalid)?;
        match self.elsewhere(id)? {
            Some(Elsewhere::Relay(relay)) => {
                let process = self.process(id, exec_id)?;
                self.kill_relayed(&relay, &process, signal, all).await
            }
            Some(Elsewhere::Command(container)) => self.kill_by_command(&container, id, exec_id, number, all).await,
            None => {
                if exec_id.is_empty()
                    && let Some(saved) = self.saved(id)?
                {
                    let init = self.process(id, exec_id)?;
                    let was_interrupted = number == Signal::KILL && saved.interrupt();
                    let _changing = init.changing.lock().await;
                    if was_interrupted && matches!(init.status(), Status::Exited(_)) {
                        return Ok(());
                    }
                    // It may have been restored meanwhile.
                    if self.saved(id)?.is_some() {
                        return self.end_saved(&init, number).await;
                    }
                }
                self.with(id, |task| task.kill(id, exec_id, number, all))
            }
        }
    }

    pub(crate) async fn pause(&self, id: &str) -> Result<(), TaskError> {
        let elsewhere = self.with(id, |task| {
            task.expect_running("pause", false)?;
            Ok(task.machine.elsewhere())
        })?;
        match elsewhere {
            Some(elsewhere) => elsewhere.pause().await?,
            None => self.with(id, |task| task.machine.pause())?,
        }
        self.set_paused(id, true)?;
        self.events.paused(id.to_owned());
        Ok(())
    }

    pub(crate) async fn resume(&self, id: &str) -> Result<(), TaskError> {
        let elsewhere = self.with(id, |task| {
            task.expect_running("resume", true)?;
            Ok(task.machine.elsewhere())
        })?;
        match elsewhere {
            Some(elsewhere) => elsewhere.resume().await?,
            None => self.with(id, |task| task.machine.resume())?,
        }
        self.set_paused(id, false)?;
        self.events.resumed(id.to_owned());
        Ok(())
    }

    fn set_paused(&self, id: &str, is_paused: bool) -> Result<(), TaskError> {
        self.with(id, |task| {
            task.is_paused = is_paused;
            Ok(())
        })
    }

    /// Host pids of everything in the container. Of one with a kernel of its own, whose runtime counts by other numbers, the one process that
    /// the host has of it.
    pub(crate) async fn pids(&self, id: &str) -> Result<Vec<u32>, TaskError> {
        let Some(elsewhere) = self.elsewhere(id)? else { return self.with(id, |task| task.machine.pids()) };
        let init = self.process(id, "")?.pid();
        let pids = elsewhere.pids().await?;
        Ok(if pids.contains(&init) { pids } else { vec![init] })
    }

    pub(crate) async fn update(&self, id: &str, resources: &[u8]) -> Result<(), TaskError> {
        let elsewhere = self.elsewhere(id)?;
        if let Some(Elsewhere::Relay(relay)) = elsewhere {
            return relay.update(resources).await;
        }
        let resources: LinuxResources = serde_json::from_slice(resources)
            .map_err(|source| TaskError::Document { what: "the resources", source })?;
        match elsewhere {
            Some(elsewhere) => elsewhere.update(&resources).await,
            None => self.with(id, |task| task.machine.update(&resources)),
        }
    }

    pub(crate) async fn stats(&self, id: &str) -> Result<Any, TaskError> {
        match self.elsewhere(id)? {
            Some(elsewhere) => elsewhere.stats().await,
            None => self.with(id, |task| task.machine.stats()),
        }
    }

    pub(crate) async fn resize(&self, id: &str, exec_id: &str, rows: u16, columns: u16) -> Result<(), TaskError> {
        let process = self.process(id, exec_id)?;
        process.io.resize(rows, columns).map_err(TaskError::from)?;
        match self.relay(id)? {
            // Before there is a process the size is remembered here.
            Some(relay) if process.pid() != 0 => relay.resize(exec_id, rows, columns).await,
            _ => Ok(()),
        }
    }

    /// Ends the shim once it has delivered everything. Refused while there is a task, unless `now`; asked of a shim that has others of the
    /// same pod, it is no error and nothing happens, as the field's own shims do it.
    pub(crate) fn shut_down(&self, now: bool) -> Result<(), TaskError> {
        if !now && let Some(state) = self.first_state() {
            return match self.is_of_a_pod() {
                true => Ok(()),
                false => Err(TaskError::State { operation: "shut down", state }),
            };
        }
        // Whoever has the answer may start another shim for this id at once: it must not find us, nor we its sockets.
        if self.creating().is_empty() {
            self.leave_addresses();
        }
        self.shutdown.notify_one();
        Ok(())
    }

    pub(crate) fn set_addresses(&self, paths: Vec<PathBuf>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = paths;
    }

    /// Takes our sockets away, once.
    pub(crate) fn leave_addresses(&self) {
        for path in std::mem::take(&mut *self.addresses.lock().unwrap_or_else(PoisonError::into_inner)) {
            // The engine may have removed the bundle already.
            std::fs::remove_file(path).ok();
        }
    }

    /// Of any task; `None`: there is none.
    fn first_state(&self) -> Option<&'static str> {
        let first = self.lock().values().next().map(|task| task.init.status().name());
        first.or_else(|| (!self.creating().is_empty()).then_some("being created"))
    }

    /// Returns when it was, and no task is half made: of that nobody could clean up.
    pub(crate) async fn shutdown_asked(&self) {
        self.shutdown.notified().await;
        while !self.creating().is_empty() {
            self.made.notified().await;
        }
    }

    /// What the attach socket of a task's bundle does with a client.
    pub(crate) fn attacher(self: &Arc<Self>, id: &str) -> crate::io::Attach {
        let (shim, id) = (Arc::clone(self), id.to_owned());
        Arc::new(move |request, stream| shim.attach(&id, request, stream))
    }

    /// A client's stream for one of the processes.
    pub(crate) fn attach(&self, id: &str, request: Request, stream: std::os::fd::OwnedFd) -> Reply {
        let attached = self
            .process(id, &request.exec_id)
            .and_then(|process| process.io.attach(request.options, stream).map_err(TaskError::from));
        match attached {
            Ok(()) => Reply::Ok(true),
            Err(error) => Reply::Error { class: error.class(), message: berth_types::report(&error) },
        }
    }

    /// What commands of other runtimes leave behind becomes ours to wait for.
    fn become_reaper(self: &Arc<Self>) -> Result<(), TaskError> {
        if !self.is_reaper.swap(true, Ordering::Relaxed) {
            let failed = |errno: rustix::io::Errno| TaskError::Reaper { source: errno.into() };
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed)?;
            // Not by the event loop's own watch of signals, for which every shim would pay.
            let told = SignalFd::block(&[rustix::process::Signal::CHILD.as_raw()]).map_err(failed)?;
            let readiness = rustix::io::fcntl_dupfd_cloexec(&told, 0).map_err(failed)?;
            // Of both: a read must never hold up the only thread.
            crate::io::set_nonblocking(&readiness).map_err(|source| TaskError::Reaper { source })?;
            let readiness = crate::io::watch(readiness, tokio::io::Interest::READABLE)
                .map_err(|source| TaskError::Reaper { source })?;
            tokio::spawn(Arc::clone(self).reap_orphans(told, readiness));
        }
        Ok(())
    }

    /// Collects processes that nobody waits for: orphans of containers without a pid namespace.
    async fn reap_orphans(self: Arc<Self>, told: SignalFd, readiness: AsyncFd<OwnedFd>) {
        loop {
            tokio::select! {
                ready = readiness.readable() => {
                    let Ok(mut ready) = ready else { return };
                    match told.next() {
                        Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                        Err(error) => return crate::log::warn(&format!("orphans are not collected: {error}")),
                    }
                }
                () = self.holds.none_left() => {}
            }
            if self.holds.is_held() {
                continue;
            }
            let awaited: Vec<u32> = self
                .lock()
                .values()
                .flat_map(|task| task.execs.values().chain([&task.init]))
                .map(|process| process.pid())
                .collect();
            reaper::collect_others(&awaited);
        }
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Task) -> Result<T, TaskError>) -> Result<T, TaskError> {
        match self.lock().get_mut(id) {
            Some(task) => act(task),
            None => Err(TaskError::NoTask { id: id.to_owned() }),
        }
    }

    fn creating(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let unknown = || TaskError::NoProcess { id: id.to_owned(), exec_id: exec_id.to_owned() };
        self.execs.get(exec_id).map(Arc::clone).ok_or_else(unknown)
    }

    fn kill(&self, id: &str, exec_id: &str, signal: Signal, all: bool) -> Result<(), TaskError> {
        let process = self.process(id, exec_id)?;
        // SIGKILL to the init of a pid namespace ends all of it, without waiting here; a frozen one (v1) must be thawed for it.
        let is_end = signal == Signal::KILL && exec_id.is_empty();
        if (is_end && self.is_paused) || self.is_for_all(all, signal) {
            return self.machine.kill_all(signal);
        }
        process.signal(signal.number())
    }

    /// SIGKILL to the init of a pid namespace of its own reaches all of them anyway.
    const fn is_for_all(&self, all: bool, signal: Signal) -> bool {
        all && (self.shares_pid_ns || !matches!(signal, Signal::KILL))
    }

    fn expect_running(&self, operation: &'static str, is_paused: bool) -> Result<(), TaskError> {
        match self.init.status() {
            Status::Running if self.is_paused == is_paused => Ok(()),
            Status::Running if self.is_paused => Err(TaskError::State { operation, state: "paused" }),
            other => Err(TaskError::State { operation, state: other.name() }),
        }
    }
}

fn runtime(operation: &'static str, source: RuntimeError) -> TaskError {
    TaskError::Runtime { operation, source }
}

/// A program that cannot be executed is the user's business, anything else a failure of the operation.
fn exec_or(operation: &'static str, source: RuntimeError) -> TaskError {
    match source.exec_failure() {
        Some(berth_runtime::ExecFailure::NotFound) => TaskError::Exec { class: ErrorClass::NotFound, cause: source },
        Some(berth_runtime::ExecFailure::NotExecutable) => {
            TaskError::Exec { class: ErrorClass::PermissionDenied, cause: source }
        }
        None => runtime(operation, source),
    }
}
