//! Processes added to a running container. An exec does not survive its container; it does survive us.
//!
//! ```text
//! created --start--> running --exit--> ended (kept for inspect, a bounded number per container)
//! ```

mod kept;
mod records;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_core::TaskError;
use berth_shim_client::{AttachOptions, ExitStatus, IoUris};
use berth_types::ExecId;

use crate::api::{ExecConfig, ExecView, Status};
use crate::container::{Container, Run};
use crate::detach_keys;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::lifecycle::exec_exit_code;
use crate::names;
use crate::request::Request;
use crate::request::process::check_user;
use crate::spec;
use crate::trace::{now_ns, span};

pub(crate) use records::Execs;
use records::{Exec, ExecState};

impl Engine {
    /// # Errors
    /// `FailedPrecondition` when the container does not run or is paused; `InvalidArgument` without a command.
    pub async fn exec_create(&self, container_ref: &str, config: ExecConfig) -> Result<String> {
        if let Some(foreign) = self.foreign(container_ref) {
            self.foreign_ready(&foreign).await?;
            check(&config)?;
            let id: ExecId = names::new_id().parse()?;
            let container_id = foreign.object.id.parse()?;
            let exec = Exec { id, container_id, config, state: ExecState::Created, pid: 0, spans: Vec::new() };
            let id = exec.id.to_string();
            self.inner.execs.add(exec)?;
            return Ok(id);
        }
        let container = self.find(container_ref)?;
        self.live(&container).await?;
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
            spans: Vec::new(),
        };
        let id = exec.id.to_string();
        let action = format!("exec_create: {}", exec.config.cmd.join(" "));
        for evicted in self.inner.execs.add(exec)? {
            self.forget_exec(&container.id, &evicted);
        }
        self.inner.faults.check("exec.create")?;
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
        if let Some(foreign) = self.foreign(exec.container_id.as_str()) {
            return self.exec_start_foreign(&foreign, exec, client, size).await;
        }
        let container = self.find(exec.container_id.as_str())?;
        let begun = now_ns();
        let launched = self.exec_launch(&container, &exec, client, size).await;
        self.inner.execs.add_span(&exec.id, span("exec.start", exec.id.short(), begun));
        match launched {
            Ok(()) => Ok(()),
            Err(error) => {
                let exit_code = i32::from(error.exit_code);
                self.inner.execs.change(&exec.id, |e| e.state = ExecState::Ended(exit_code));
                Err(error)
            }
        }
    }

    /// Its events come from the shim.
    async fn exec_start_foreign(
        &self,
        foreign: &crate::foreign::Foreign,
        exec: Exec,
        client: Option<(OwnedFd, Vec<u8>)>,
        size: Option<(u16, u16)>,
    ) -> Result<()> {
        let spare = client.as_ref().and_then(|(stream, _)| stream.try_clone().ok());
        let (member, pid) = match self.foreign_exec(foreign, &exec.id, &exec.config, client, size).await {
            Ok(started) => started,
            Err(error) => {
                if let Some(stream) = spare {
                    tell(&stream, exec.config.tty, &error.message);
                }
                self.inner.execs.change(&exec.id, |e| e.state = ExecState::Ended(i32::from(error.exit_code)));
                return Err(error);
            }
        };
        self.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Running, pid));
        let engine = self.clone();
        tokio::spawn(async move {
            let status = member.shim.wait(Some(&exec.id)).await;
            // The container ended and took the process along.
            let code =
                status.map_or(ExitStatus::KILLED.cast_signed(), |status| i32::try_from(status.code).unwrap_or(255));
            engine.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Ended(code), 0));
            if let Err(error) = member.shim.delete(Some(&exec.id)).await {
                tracing::debug!(container_id = member.id, exec_id = %exec.id, "{}", berth_types::report(&error));
            }
        });
        Ok(())
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
        if exec.config.trace {
            run.task.bundle().ask_exec_trace(&exec.id)?;
        }
        let start_ns = now_ns();
        let request = Request::parse(&record.config, &record.host, &self.inner.facts)?;
        let process = spec::process::exec(&record, &request, &exec.config, size);
        let process = serde_json::to_vec(&process)
            .map_err(|e| EngineError::internal(format!("cannot encode the process: {e}")))?;
        let has_client = client.is_some();
        self.inner.execs.add_span(&exec.id, span("process.plan", "", start_ns));
        let start_ns = now_ns();
        // Before the shim knows it: a daemon after us must find it, or it and its client would wait for a start for ever.
        self.keep_exec(exec, None)?;
        if let Err(error) = run.task.exec(&exec.id, &process, &io_uris(&exec.config, has_client)).await {
            self.forget_exec(&container.id, exec.id.as_str());
            return Err(error.into());
        }
        self.inner.execs.add_span(&exec.id, span("task.exec", exec.id.short(), start_ns));
        let spare = client.as_ref().and_then(|(stream, _)| stream.try_clone().ok());
        let launched = self.exec_launch_added(container, &run, exec, client).await;
        if let Err(error) = &launched {
            if let Some(stream) = spare {
                tell(&stream, exec.config.tty, &error.message);
            }
            self.discard_exec(container, &run, &exec.id).await;
        }
        launched
    }

    /// The shim knows the process; on failure the caller makes it forget.
    async fn exec_launch_added(
        &self,
        container: &Arc<Container>,
        run: &Arc<Run>,
        exec: &Exec,
        client: Option<(OwnedFd, Vec<u8>)>,
    ) -> Result<()> {
        self.inner.faults.check("exec.add")?;
        if let Some((stream, early_input)) = client {
            let options = AttachOptions {
                stdin: exec.config.attach_stdin,
                stdout: exec.config.attach_stdout,
                stderr: exec.config.attach_stderr,
                detach_keys: detach_keys::parse(exec.config.detach_keys.as_deref())?,
                early_input,
            };
            let start_ns = now_ns();
            run.task.attach(Some(&exec.id), stream, &options).await?;
            self.inner.execs.add_span(&exec.id, span("task.attach", exec.id.short(), start_ns));
        }
        self.inner.faults.check("exec.attach")?;
        let command = exec.config.cmd.join(" ");
        let start_ns = now_ns();
        let started = run.task.exec_start(&exec.id).await;
        self.inner.execs.add_span(&exec.id, span("task.exec-start", exec.id.short(), start_ns));
        if exec.config.trace {
            let spans = run.task.bundle().take_exec_trace(&exec.id);
            spans.into_iter().for_each(|span| self.inner.execs.add_span(&exec.id, span));
        }
        let pid = started.map_err(|error| exec_failed(&error))?;
        self.inner.faults.pass("exec.start");
        // Its end is only looked for below, so it is told after this.
        let action = format!("exec_start: {command}");
        self.emit_container_process(&container.record(), &action, &[("execID", exec.id.to_string())], pid);
        self.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Running, pid));
        self.exec_supervise(Arc::clone(container), Arc::clone(run), Exec { pid, ..exec.clone() });
        Ok(())
    }

    /// A process that runs already is ended. The shim's forgetting also ends the client's stream.
    async fn discard_exec(&self, container: &Container, run: &Run, exec_id: &ExecId) {
        self.forget_exec(&container.id, exec_id.as_str());
        if let Err(error) = run.task.exec_delete(exec_id).await {
            tracing::debug!(container_id = %container.id, exec_id = %exec_id, "{}", berth_types::report(&error));
        }
    }

    fn exec_supervise(&self, container: Arc<Container>, run: Arc<Run>, exec: Exec) {
        let engine = self.clone();
        let begun = now_ns();
        tokio::spawn(async move {
            let exit_code = match run.task.exec_wait(&exec.id).await {
                Ok(status) => i32::try_from(status.code).unwrap_or(255),
                // The container ended and took the process along.
                Err(_) => ExitStatus::KILLED.cast_signed(),
            };
            engine.inner.execs.add_span(&exec.id, span("process.run", "", begun));
            engine.exec_ended(&container, &run, &exec, exit_code, false).await;
        });
    }

    /// `is_told`: a daemon before us told it.
    async fn exec_ended(&self, container: &Container, run: &Run, exec: &Exec, exit_code: i32, is_told: bool) {
        self.inner.execs.change(&exec.id, |e| (e.state, e.pid) = (ExecState::Ended(exit_code), 0));
        self.inner.faults.pass("exec.end");
        if !is_told {
            let attributes = [("execID", exec.id.to_string()), ("exitCode", exit_code.to_string())];
            self.emit_container_process(&container.record(), "exec_die", &attributes, exec.pid);
        }
        self.inner.faults.pass("exec.told");
        // The shim forgets the code with the process; the container's own end takes both along.
        if let Err(error) = self.keep_exec(exec, Some(exit_code)) {
            tracing::debug!(container_id = %container.id, exec_id = %exec.id, "exit of a process is not kept: {error}");
        }
        if let Err(error) = run.task.exec_delete(&exec.id).await {
            tracing::debug!(container_id = %container.id, exec_id = %exec.id, "{}", berth_types::report(&error));
        }
        self.inner.faults.pass("exec.delete");
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
        if let Some(foreign) = self.foreign(exec.container_id.as_str()) {
            let member = self.foreign_ready(&foreign).await?;
            return Ok(member.shim.resize_pty(Some(&exec.id), rows, columns).await?);
        }
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
pub(crate) fn io_uris(config: &ExecConfig, has_client: bool) -> IoUris {
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
            let reason = if source.is_exec_failure() { text.trim_start_matches("exec: ") } else { &text };
            EngineError::new(berth_types::Classify::class(error), format!("exec failed: {reason}"))
                .with_exit_code(exec_exit_code(source))
        }
        other => EngineError::new(berth_types::Classify::class(other), berth_types::report(other)),
    }
}
