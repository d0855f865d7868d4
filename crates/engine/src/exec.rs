//! Processes added to a running container. Their records live in memory: an exec does not survive its container, nor a restart of ours.
//!
//! ```text
//! created --start--> running --exit--> ended (kept for inspect, a bounded number per container)
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_core::TaskError;
use berth_shim_client::{AttachOptions, IoUris};
use berth_types::{ContainerId, ErrorClass, ExecId};
use parking_lot::Mutex;

use crate::api::{ExecConfig, ExecView, Status};
use crate::container::Container;
use crate::detach_keys;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::lifecycle::exec_exit_code;
use crate::names;
use crate::request::Request;
use crate::request::process::check_user;
use crate::spec;

/// Records kept per container; ended ones make room, oldest first.
const EXECS_MAX: usize = 128;
/// Processes that run or wait to be started, per container.
const LIVE_MAX: usize = 4096;

/// Longest wait of `inspect` for an exit that is on its way.
const SETTLE_WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Execs {
    inner: Mutex<Inner>,
    /// Some exec has another state.
    changed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Exec>,
    /// In order of creation.
    by_container: HashMap<ContainerId, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Exec {
    id: ExecId,
    container_id: ContainerId,
    config: ExecConfig,
    state: ExecState,
    pid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExecState {
    Created,
    Starting,
    Running,
    Ended(i32),
}

impl Execs {
    fn add(&self, exec: Exec) -> Result<()> {
        let mut inner = self.inner.lock();
        let Inner { by_id, by_container } = &mut *inner;
        let ids = by_container.entry(exec.container_id.clone()).or_default();
        while ids.len() >= EXECS_MAX {
            let is_ended = |id: &String| by_id.get(id).is_none_or(|e| matches!(e.state, ExecState::Ended(_)));
            let Some(index) = ids.iter().position(is_ended) else { break };
            by_id.remove(&ids.remove(index));
        }
        if ids.len() >= LIVE_MAX {
            return Err(EngineError::new(
                ErrorClass::ResourceExhausted,
                format!("container has {LIVE_MAX} exec processes already"),
            ));
        }
        ids.push(exec.id.to_string());
        by_id.insert(exec.id.to_string(), exec);
        Ok(())
    }

    fn get(&self, exec_id: &str) -> Result<Exec> {
        let inner = self.inner.lock();
        inner
            .by_id
            .get(exec_id)
            .cloned()
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {exec_id}")))
    }

    fn change(&self, exec_id: &ExecId, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.inner.lock().by_id.get_mut(exec_id.as_str()) {
            change(exec);
        }
        self.changed.notify_waiters();
    }

    /// The state once it is settled: a client whose stream has just ended asks for the exit code before we have heard of the exit.
    async fn settled(&self, exec_id: &str) -> Result<Exec> {
        let deadline = tokio::time::Instant::now() + SETTLE_WAIT;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let exec = self.get(exec_id)?;
            let is_settled = match exec.state {
                ExecState::Created | ExecState::Ended(_) => true,
                ExecState::Starting => false,
                ExecState::Running => is_alive(exec.pid),
            };
            if is_settled || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(exec);
            }
        }
    }

    /// Created to starting, once.
    fn claim(&self, exec_id: &str) -> Result<Exec> {
        let mut inner = self.inner.lock();
        let exec = inner
            .by_id
            .get_mut(exec_id)
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {exec_id}")))?;
        match exec.state {
            ExecState::Created => exec.state = ExecState::Starting,
            ExecState::Ended(_) => return Err(EngineError::conflict(format!("exec {exec_id} has already run"))),
            _ => return Err(EngineError::conflict(format!("exec {exec_id} is already running"))),
        }
        Ok(exec.clone())
    }

    pub(crate) fn of_container(&self, id: &ContainerId) -> Vec<String> {
        let inner = self.inner.lock();
        let is_live = |exec: &&String| {
            inner.by_id.get(*exec).is_some_and(|e| matches!(e.state, ExecState::Starting | ExecState::Running))
        };
        inner.by_container.get(id).into_iter().flatten().filter(is_live).cloned().collect()
    }

    pub(crate) fn forget_container(&self, id: &ContainerId) {
        let mut inner = self.inner.lock();
        for exec_id in inner.by_container.remove(id).unwrap_or_default() {
            inner.by_id.remove(&exec_id);
        }
    }
}

impl Engine {
    /// # Errors
    /// `FailedPrecondition` when the container does not run or is paused; `InvalidArgument` without a command.
    pub async fn exec_create(&self, container_ref: &str, config: ExecConfig) -> Result<String> {
        let container = self.find(container_ref)?;
        container.running()?;
        if container.status() == Status::Paused {
            return Err(EngineError::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.name()
            ))
            .with_hint(format!("berth unpause {}", container.name())));
        }
        check(&config)?;
        let exec = Exec {
            id: names::new_id().parse()?,
            container_id: container.id.clone(),
            config,
            state: ExecState::Created,
            pid: 0,
        };
        let id = exec.id.to_string();
        let action = format!("exec_create: {}", exec.config.cmd.join(" "));
        self.inner.execs.add(exec)?;
        self.emit_container(&container.record(), &action, &[("execID", id.clone())]);
        Ok(id)
    }

    /// `client`: the hijacked stream, None when detached. `size`: rows, columns.
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` when the program cannot be executed; `FailedPrecondition` when it was started before.
    pub async fn exec_start(
        &self,
        exec_id: &str,
        client: Option<(OwnedFd, Vec<u8>)>,
        size: Option<(u16, u16)>,
    ) -> Result<()> {
        let exec = self.inner.execs.claim(exec_id)?;
        let engine = self.clone();
        let job = tokio::spawn(async move { engine.exec_start_claimed(exec, client, size).await });
        job.await.unwrap_or_else(|_| Err(EngineError::internal("the exec ended early")))
    }

    async fn exec_start_claimed(
        &self,
        exec: Exec,
        client: Option<(OwnedFd, Vec<u8>)>,
        size: Option<(u16, u16)>,
    ) -> Result<()> {
        let container = self.find(exec.container_id.as_str())?;
        match self.exec_launch(&container, &exec, client, size).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let exit_code = i32::from(error.exit_code);
                self.inner.execs.change(&exec.id, |e| e.state = ExecState::Ended(exit_code));
                Err(error)
            }
        }
    }

    async fn exec_launch(
        &self,
        container: &Arc<Container>,
        exec: &Exec,
        client: Option<(OwnedFd, Vec<u8>)>,
        size: Option<(u16, u16)>,
    ) -> Result<()> {
        let run = container.running()?;
        let record = container.record();
        let request = Request::parse(&record.config, &record.host, &self.inner.facts)?;
        let process = spec::process::exec(&record, &request, &exec.config, size);
        let process = serde_json::to_vec(&process)
            .map_err(|e| EngineError::internal(format!("cannot encode the process: {e}")))?;
        let has_client = client.is_some();
        run.task.exec(&exec.id, &process, &io_uris(&exec.config, has_client)).await?;
        let mut spare = None;
        if let Some((stream, early_input)) = client {
            spare = stream.try_clone().ok();
            let options = AttachOptions {
                stdin: exec.config.attach_stdin,
                stdout: exec.config.attach_stdout,
                stderr: exec.config.attach_stderr,
                detach_keys: detach_keys::parse(exec.config.detach_keys.as_deref())?,
                early_input,
            };
            run.task.attach(Some(&exec.id), stream, &options).await?;
        }
        let command = exec.config.cmd.join(" ");
        match run.task.exec_start(&exec.id).await {
            Ok(pid) => {
                // Its end is only looked for below, so it is told after this.
                let action = format!("exec_start: {command}");
                self.emit_container_process(&record, &action, &[("execID", exec.id.to_string())], pid);
                self.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Running, pid));
                self.exec_supervise(Arc::clone(container), run, Exec { pid, ..exec.clone() });
                Ok(())
            }
            Err(error) => {
                let error = exec_failed(&error);
                if let Some(stream) = spare {
                    tell(&stream, exec.config.tty, &error.message);
                }
                // The shim forgets it, which ends the client's stream; that it is gone already is fine.
                if let Err(error) = run.task.exec_delete(&exec.id).await {
                    tracing::debug!(container_id = %container.id, exec_id = %exec.id, "{}", berth_types::report(&error));
                }
                Err(error)
            }
        }
    }

    fn exec_supervise(&self, container: Arc<Container>, run: Arc<crate::container::Run>, exec: Exec) {
        let engine = self.clone();
        tokio::spawn(async move {
            let exit_code = match run.task.exec_wait(&exec.id).await {
                Ok(status) => i32::try_from(status.code).unwrap_or(255),
                // The container ended and took the process along.
                Err(_) => 137,
            };
            engine.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Ended(exit_code), 0));
            let attributes = [("execID", exec.id.to_string()), ("exitCode", exit_code.to_string())];
            engine.emit_container_process(&container.record(), "exec_die", &attributes, exec.pid);
            if let Err(error) = run.task.exec_delete(&exec.id).await {
                tracing::debug!(container_id = %container.id, exec_id = %exec.id, "{}", berth_types::report(&error));
            }
        });
    }

    /// # Errors
    /// `NotFound`.
    pub async fn exec_inspect(&self, exec_id: &str) -> Result<ExecView> {
        let exec = self.inner.execs.settled(exec_id).await?;
        Ok(ExecView {
            id: exec.id.to_string(),
            container_id: exec.container_id,
            config: exec.config,
            running: matches!(exec.state, ExecState::Running),
            exit_code: match exec.state {
                ExecState::Ended(code) => Some(code),
                _ => None,
            },
            pid: exec.pid,
        })
    }

    /// # Errors
    /// `FailedPrecondition` when the container does not run.
    pub async fn exec_resize(&self, exec_id: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.inner.execs.get(exec_id)?;
        let container = self.find(exec.container_id.as_str())?;
        container.running()?.task.resize(Some(&exec.id), rows, columns).await?;
        Ok(())
    }
}

/// The reason a process could not be started, as its last words on the client's stream. A client that does not read gets none.
fn tell(stream: &OwnedFd, is_raw: bool, text: &str) {
    let text = format!("{text}\r\n");
    let length = u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
    let mut frame = if is_raw { Vec::new() } else { [&[2, 0, 0, 0], &length[..]].concat() };
    frame.extend_from_slice(text.as_bytes());
    let sent = rustix::net::send(stream, &frame, rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL);
    if let Err(error) = sent {
        tracing::debug!("a client is not told why its process did not start: {error}");
    }
}

/// Neither gone nor a zombie that its shim is about to reap.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None))
}

fn check(config: &ExecConfig) -> Result<()> {
    if config.cmd.first().is_none_or(String::is_empty) {
        return Err(EngineError::invalid("No exec command specified").with_hint("as in berth exec CONTAINER ls /"));
    }
    if config.cmd.iter().chain(&config.env).chain([&config.user, &config.working_dir]).any(|text| text.contains('\0')) {
        return Err(EngineError::invalid("an argument or variable contains a zero byte"));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' needs to be an absolute path",
            config.working_dir
        )));
    }
    detach_keys::parse(config.detach_keys.as_deref())?;
    check_user(&config.user)
}

/// Nothing of an exec is logged; without a client its output goes nowhere.
fn io_uris(config: &ExecConfig, has_client: bool) -> IoUris {
    let output = |is_attached: bool| if has_client && is_attached { "attach://" } else { "null://" }.to_owned();
    IoUris {
        stdin: if has_client && config.attach_stdin { "attach://?once=1".to_owned() } else { String::new() },
        stdout: if config.tty && has_client { "attach://".to_owned() } else { output(config.attach_stdout) },
        stderr: if config.tty { String::new() } else { output(config.attach_stderr) },
        terminal: config.tty,
    }
}

fn exec_failed(error: &TaskError) -> EngineError {
    match error {
        TaskError::Shim { source, .. } => {
            let text = berth_types::report(source);
            EngineError::new(berth_types::Classify::class(error), format!("exec failed: {text}"))
                .with_exit_code(exec_exit_code(source))
        }
        other => EngineError::new(berth_types::Classify::class(other), berth_types::report(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(n: usize, state: ExecState) -> Exec {
        Exec {
            id: format!("e{n}").parse().unwrap(),
            container_id: "c".parse().unwrap(),
            config: ExecConfig::default(),
            state,
            pid: 0,
        }
    }

    #[test]
    fn ended_records_make_room_live_ones_stay() {
        let execs = Execs::default();
        execs.add(exec(0, ExecState::Running)).unwrap();
        for n in 1..1000 {
            execs.add(exec(n, ExecState::Ended(0))).unwrap();
        }
        assert_eq!(execs.inner.lock().by_id.len(), EXECS_MAX);
        assert_eq!(execs.of_container(&"c".parse().unwrap()), ["e0"]);
        assert!(execs.get("e1").is_err() && execs.get("e999").is_ok());
        execs.forget_container(&"c".parse().unwrap());
        assert!(execs.inner.lock().by_id.is_empty());
    }

    #[test]
    fn an_exec_starts_once() {
        let execs = Execs::default();
        execs.add(exec(1, ExecState::Created)).unwrap();
        execs.claim("e1").unwrap();
        assert_eq!(execs.claim("e1").unwrap_err().class, ErrorClass::FailedPrecondition);
        execs.change(&"e1".parse().unwrap(), |e| e.state = ExecState::Ended(3));
        assert_eq!(execs.claim("e1").unwrap_err().message, "exec e1 has already run");
        assert_eq!(execs.claim("nope").unwrap_err().class, ErrorClass::NotFound);
    }
}
