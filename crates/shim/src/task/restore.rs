//! Restore: a task that is made from a checkpoint has no process before it is started; then criu (criu.org) makes them all, and init becomes our
//! child. That takes its time, and everybody else is served meanwhile ([`crate::aside`]).
//!
//! A task whose restore fails has ended; nothing of it is left in the kernel. One that is killed before its start ends without having run; one that is
//! killed while criu is at work takes criu along, which is in the container's cgroup with all that it has made so far.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::Spec;
use berth_runtime::{CgroupDriver, Container, CriuOptions, CriuSwitches, RestoreOptions, Rootfs, Stdio};
use berth_shim_client::find_executable;
use berth_types::{ContainerId, Signal, Timestamp};

use super::create::{note, terminal_size};
use super::machine::Machine;
use super::{Shim, runtime, trace};
use crate::aside::{MEANWHILE, aside};
use crate::error::TaskError;
use crate::io::Streams;
use crate::process::{Exit, Process, Status};
use crate::record::Record;
use crate::{log, reaper};

const OPERATION: &str = "restore";
/// containerd's code of an end that is none of the process's own.
const UNKNOWN: u32 = 255;
const KILLED: u32 = 128 + 9;
const KILLED_STATE: &str = "killed";
/// For what a restore has made so far to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a start makes the container of.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) spec: Spec,
    pub(super) rootfs: Rootfs,
    pub(super) criu: CriuOptions,
    pub(super) progress: Progress,
}

/// How far a restore is, for whoever would end it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The group is the restore's alone, and it is under way.
    is_interruptible: AtomicBool,
    is_killed: AtomicBool,
}

impl Saved {
    /// What is restored in the group has other names than ours: whoever cleans up after a shim that dies meanwhile knows it by this.
    fn note_group(&self) {
        let Ok(path) = CgroupDriver::Cgroupfs.path_of(&self.spec, self.id.as_str()) else { return };
        let found = Layout::detect().and_then(|layout| Cgroup::open(&layout, &path)).and_then(|group| group.pids());
        // Somebody else's who is there already is not to be killed with it.
        if !found.is_ok_and(|pids| !pids.is_empty()) {
            self.progress.is_interruptible.store(true, Ordering::Relaxed);
            note(&Record::new(0, &path), &self.bundle);
        }
    }

    /// Ends a restore that is under way: criu and what it has made. False when none is. The restore fails then, and tidies up.
    pub(super) fn interrupt(&self) -> bool {
        if !self.progress.is_interruptible.load(Ordering::Relaxed) {
            return false;
        }
        self.progress.is_killed.store(true, Ordering::Relaxed);
        // Without a group criu is not there yet; what does not die is told by the restore, which kills once more.
        if let Ok(path) = CgroupDriver::Cgroupfs.path_of(&self.spec, self.id.as_str())
            && let Ok(group) = Layout::detect().and_then(|layout| Cgroup::open(&layout, &path))
            && let Err(error) = group.kill_all(Signal::KILL, KILL_TIMEOUT)
        {
            log::error(&format!("kill of a restore: {}", berth_types::report(&error)));
        }
        true
    }

    fn was_killed(&self) -> bool {
        self.progress.is_killed.load(Ordering::Relaxed)
    }

    fn restore(&self, stdio: Stdio) -> Result<Container, TaskError> {
        if self.was_killed() {
            return Err(TaskError::State { operation: OPERATION, state: KILLED_STATE });
        }
        let options = RestoreOptions {
            scratch: &self.bundle,
            rootfs: self.rootfs.clone(),
            stdio: Some(stdio),
            meanwhile: MEANWHILE,
        };
        Container::restore(&self.spec, &self.id, &self.bundle, &self.criu, options)
            .map_err(|source| runtime(OPERATION, source))
    }
}

impl Shim {
    /// How a checkpoint in this directory is restored. What it was saved with it is restored with, too: nobody says so again.
    ///
    /// # Errors
    /// `NotFound` for a directory that is not there, `Unimplemented` without criu.
    pub(super) fn restorer(&self, images: &Path, work: Option<PathBuf>) -> Result<CriuOptions, TaskError> {
        const CONNECTION: &str = "tcp-stream-";
        let failed = |source| TaskError::Read { path: images.to_owned(), source };
        let mut has_connections = false;
        for entry in std::fs::read_dir(images).map_err(failed)? {
            has_connections |= entry.map_err(failed)?.file_name().to_string_lossy().starts_with(CONNECTION);
        }
        Ok(CriuOptions {
            program: find_executable(Path::new("criu"), &self.surroundings.search)
                .ok_or_else(|| TaskError::NoCriu { search: self.surroundings.search.clone() })?,
            images: images.to_owned(),
            work,
            switches: CriuSwitches {
                tcp_established: has_connections,
                ext_unix_sk: true,
                file_locks: true,
                ..CriuSwitches::default()
            },
        })
    }

    /// What the task is to be restored from, until it is.
    pub(super) fn saved(&self, id: &str) -> Result<Option<Arc<Saved>>, TaskError> {
        self.with(id, |task| match &task.machine {
            Machine::Saved(saved) => Ok(Some(Arc::clone(saved))),
            _ => Ok(None),
        })
    }

    /// The caller holds `init.changing`.
    pub(super) async fn restore_init(
        self: &Arc<Self>,
        saved: Arc<Saved>,
        init: &Arc<Process>,
        begun: u64,
    ) -> Result<u32, TaskError> {
        match init.status() {
            Status::Created => {}
            other => return Err(TaskError::State { operation: OPERATION, state: other.name() }),
        }
        let _hold = self.holds.hold();
        let (stdio, streams) = init.io.streams(terminal_size(&saved.spec))?;
        let object = saved.criu.images.display().to_string();
        let bundle = saved.bundle.clone();
        saved.note_group();
        let restoring = Arc::clone(&saved);
        let restored = aside(move || restoring.restore(stdio)).await;
        saved.progress.is_interruptible.store(false, Ordering::Relaxed);
        let followed = match restored {
            Ok(container) => self.follow_restored(container, init, streams),
            Err(error) => Err(error),
        };
        self.with(&init.task_id, |task| {
            task.trace.spans.push(trace::own_span("runtime.restore", &object, begun));
            task.trace.finish("task.start", &init.task_id, begun, &task.bundle);
            Ok(())
        })?;
        if followed.is_err() {
            note(&Record::new(0, ""), &bundle);
            let code = if saved.was_killed() { KILLED } else { UNKNOWN };
            self.ended(init, Exit { code, at: Timestamp::now(), note: None }).await;
        }
        match followed {
            // What criu said when it went is not the reason.
            Err(_) if saved.was_killed() => Err(TaskError::State { operation: OPERATION, state: KILLED_STATE }),
            other => other.map(|()| init.pid()),
        }
    }

    /// It runs: from here on it is a container like any other.
    fn follow_restored(
        self: &Arc<Self>,
        mut container: Container,
        init: &Arc<Process>,
        streams: Streams,
    ) -> Result<(), TaskError> {
        let pid = container.init.pid;
        let console = container.init.console.take();
        container.warnings.iter().for_each(|warning| log::warn(warning));
        let watch = |source| TaskError::Watch { pid, source };
        let followed = (|| {
            let pidfd: OwnedFd = container.init.pidfd.try_clone().map_err(watch)?;
            init.io.connect(streams, console)?;
            init.io.follow_fifo()?;
            let exited = reaper::follow(&pidfd).map_err(watch)?;
            Ok((pidfd, exited))
        })();
        let (pidfd, exited) = match followed {
            Ok(followed) => followed,
            Err(error) => {
                if let Err(undo) = container.remove() {
                    log::error(&format!("roll-back of restore: {}", berth_types::report(&undo)));
                }
                return Err(error);
            }
        };
        init.set_live(pid, Some(Arc::new(pidfd)), Status::Running);
        tokio::spawn(Arc::clone(self).init_ends(Arc::clone(init), exited));
        self.with(&init.task_id, |task| {
            note(&Record::new(pid, container.cgroup().path()), &task.bundle);
            task.oom_watch = self.watch_memory(&init.task_id, Some(container.cgroup()));
            task.machine = Machine::Own(Box::new(container));
            Ok(())
        })
    }

    /// A signal to a task that is not restored: there is nobody to get it, but SIGKILL is the end in any case. The caller holds `init.changing`.
    pub(super) async fn end_saved(&self, init: &Arc<Process>, signal: Signal) -> Result<(), TaskError> {
        match init.status() {
            Status::Created if signal == Signal::KILL => {
                self.ended(init, Exit { code: KILLED, at: Timestamp::now(), note: None }).await;
                Ok(())
            }
            Status::Exited(_) => Err(TaskError::Ended { id: init.task_id.clone(), exec_id: String::new() }),
            other => Err(TaskError::State { operation: "signal", state: other.name() }),
        }
    }
}
