//! The end of processes: statuses are kept until they are deleted, and a task is deleted when its output is delivered.

use std::sync::Arc;
use std::time::Duration;

use berth_cgroup::Cgroup;
use berth_proto::{events, instant};
use berth_types::{ExitNote, Signal, exit_note};
use tokio::task::JoinHandle;

use super::Shim;
use super::create::ROOTFS;
use super::elsewhere::Elsewhere;
use super::machine::Machine;
use crate::error::TaskError;
use crate::process::{Exit, Process, Status};
use crate::{log, oom};

/// How long the news of an OOM kill may hold up the news of the exit it caused.
const OOM_NEWS: Duration = Duration::from_millis(500);

/// What is left of a deleted process.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) pid: u32,
    pub(crate) exit: Exit,
}

impl Shim {
    /// What cannot be deleted stays as it is, and is deleted by another try.
    pub(crate) async fn delete(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<Deleted, TaskError> {
        let process = self.process(id, exec_id)?;
        let deleted = match process.status() {
            Status::Exited(exit) => {
                process.settled().await;
                Deleted { pid: process.pid(), exit }
            }
            Status::Added => {
                process.io.settle().await;
                Deleted { pid: 0, exit: Exit { code: 0, at: berth_types::Timestamp::now(), note: None } }
            }
            other => return Err(TaskError::State { operation: "delete", state: other.name() }),
        };
        let _deleting = process.changing.lock().await;
        // Somebody else may have deleted it meanwhile, and another have come to be.
        if !Arc::ptr_eq(&self.process(id, exec_id)?, &process) {
            return Err(TaskError::Ended { id: id.to_owned(), exec_id: exec_id.to_owned() });
        }
        // A process that never was one is not known behind us.
        if let Some(relay) = self.relay(id)?.filter(|_| exec_id.is_empty() || deleted.pid != 0) {
            relay.delete(exec_id).await?;
        }
        if exec_id.is_empty() {
            self.delete_task(id).await?;
        } else {
            self.with(id, |task| Ok(task.execs.remove(exec_id)))?;
        }
        if self.is_sandbox(id) {
            return Ok(deleted);
        }
        self.events.deleted(&events::TaskDelete {
            container_id: id.to_owned(),
            id: if exec_id.is_empty() { id.to_owned() } else { exec_id.to_owned() },
            pid: deleted.pid,
            exit_status: deleted.exit.code,
            exited_at: instant::into_wire(deleted.exit.at),
            ..Default::default()
        });
        Ok(deleted)
    }

    /// In a job of its own, for a caller that gives up must not take the container along.
    async fn delete_task(self: &Arc<Self>, id: &str) -> Result<(), TaskError> {
        let machine = self.with(id, |task| Ok(std::mem::replace(&mut task.machine, Machine::Away)))?;
        let (shim, id) = (Arc::clone(self), id.to_owned());
        let deleting = async move {
            let (machine, deleted) = match machine {
                Machine::Relay(_) => (machine, Ok(())),
                machine => machine.delete().await,
            };
            let mut tasks = shim.lock();
            match deleted {
                Ok(()) => {
                    if let Some(task) = tasks.remove(&id) {
                        task.oom_watch.iter().chain(&task.attach_job).for_each(JoinHandle::abort);
                        shim.mounts.unmount(&task.bundle.join(ROOTFS));
                    }
                    Ok(())
                }
                Err(error) => {
                    if let Some(task) = tasks.get_mut(&id) {
                        task.machine = machine;
                    }
                    Err(error)
                }
            }
        };
        let ending = Err(TaskError::State { operation: "delete", state: "ending with its shim" });
        tokio::spawn(deleting).await.unwrap_or(ending)
    }

    /// The job of init's end.
    pub(super) async fn init_ends(self: Arc<Self>, init: Arc<Process>, exited: impl Future<Output = Exit> + Send) {
        let exit = exited.await;
        // Docker forgets an end that it is told of before the start.
        drop(init.changing.lock().await);
        let id = init.task_id.as_str();
        // At once: systemd takes an empty scope away, and the count with it.
        let _gone = self.look_for_kills(id);
        if let Err(error) = self.end_others(id).await {
            log::warn(&format!("processes outlive their container's init: {}", berth_types::report(&error)));
        }
        if let Some(mut note) = exit.note {
            note.oom_kills = self.lock().get(id).map_or(0, |task| task.oom_kills_told);
            self.keep_note(id, note);
        }
        // Whoever learns of the exit shall know by then whether it was for lack of memory.
        tokio::time::timeout(OOM_NEWS, self.events.delivered()).await.ok();
        self.ended(&init, exit).await;
    }

    /// Processes of a container without a pid namespace of its own do not end with its init.
    async fn end_others(&self, id: &str) -> Result<(), TaskError> {
        let elsewhere = {
            let tasks = self.lock();
            let Some(task) = tasks.get(id).filter(|task| task.shares_pid_ns) else { return Ok(()) };
            match task.machine.elsewhere() {
                None => return task.machine.kill_all(Signal::KILL),
                Some(elsewhere) => elsewhere,
            }
        };
        match elsewhere {
            Elsewhere::Relay(_) => Ok(()),
            Elsewhere::Command(container) => {
                let killed = container.kill(Signal::KILL.number(), true).await;
                killed.map_err(|source| super::machine::command("signal", source))
            }
        }
    }

    /// Beside the protocol, before anybody learns of the exit: our engine tells with it what ended the container.
    fn keep_note(&self, id: &str, note: ExitNote) {
        let Some(bundle) = self.lock().get(id).map(|task| task.bundle.clone()) else { return };
        let json = serde_json::to_vec(&note).map_err(std::io::Error::from);
        if let Err(error) = json.and_then(|json| std::fs::write(bundle.join(exit_note::FILE), json)) {
            log::warn(&format!("cannot write {}: {error}", exit_note::FILE));
        }
    }

    /// The job of an added process's end.
    pub(super) async fn exec_ends(self: Arc<Self>, process: Arc<Process>, exited: impl Future<Output = Exit> + Send) {
        let exit = exited.await;
        self.ended(&process, exit).await;
    }

    pub(super) async fn ended(&self, process: &Arc<Process>, exit: Exit) {
        process.io.delivered().await;
        process.set_exited(exit);
        if !self.is_sandbox(&process.task_id) {
            self.events.exited(&events::TaskExit {
                container_id: process.task_id.clone(),
                id: if process.exec_id.is_empty() { process.task_id.clone() } else { process.exec_id.clone() },
                pid: process.pid(),
                exit_status: exit.code,
                exited_at: instant::into_wire(exit.at),
                ..Default::default()
            });
        }
        process.io.settle().await;
        process.set_settled();
    }

    /// `None` on a host without a memory controller: there is nothing to report then.
    pub(super) fn watch_memory(self: &Arc<Self>, id: &str, group: Option<&Cgroup>) -> Option<JoinHandle<()>> {
        let descriptor = match group?.oom_watch() {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn(&format!("cannot watch for lack of memory: {}", berth_types::report(&error)));
                return None;
            }
        };
        let (shim, id) = (Arc::clone(self), id.to_owned());
        Some(tokio::spawn(async move {
            if let Err(error) = oom::follow(descriptor, || shim.look_for_kills(&id)).await {
                log::warn(&format!("cannot watch for lack of memory any more: {error}"));
            }
        }))
    }

    /// Tells of kills that were not told yet, and whether there were any. `None`: there is no group to ask.
    fn look_for_kills(&self, id: &str) -> Option<bool> {
        let is_new = {
            let mut tasks = self.lock();
            let task = tasks.get_mut(id)?;
            let kills = task.machine.cgroup()?.oom_kills().ok()?;
            let is_new = kills > task.oom_kills_told;
            task.oom_kills_told = kills;
            is_new
        };
        if is_new {
            self.events.out_of_memory(id.to_owned());
        }
        Some(is_new)
    }
}
