//! `attach` and `resize`: a client's stream goes to the container's shim; we keep nothing of it.

use std::os::fd::OwnedFd;

use berth_shim_client::AttachOptions;

use crate::api::{AttachRequest, LogOptions, Status};
use crate::container::PENDING_ATTACHES_MAX;
use crate::detach_keys;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// Gives the client's stream to the container's shim; answered once it is registered. Works on a created container (before start) too.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container has ended or is paused.
    pub async fn attach(&self, container_ref: &str, client: OwnedFd, request: AttachRequest) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_attach(&foreign, client, request).await;
        }
        let container = self.find(container_ref)?;
        let options = AttachOptions {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            detach_keys: detach_keys::parse(request.detach_keys.as_deref())?,
            early_input: request.early_input,
        };
        let client = if request.logs { self.replay_log(container_ref, client, &options).await? } else { client };
        if !request.stream {
            return Ok(()); // The client wanted the log only; its stream ends here.
        }
        let _operation = container.operation.lock().await;
        container.ensure_present()?;
        let (status, run, record) = {
            let inner = container.lock();
            (inner.record.state.status, inner.run.clone(), inner.record.clone())
        };
        match (status, run) {
            (Status::Running, Some(run)) => run.task.attach(None, client, &options).await?,
            (Status::Paused, _) => {
                return Err(EngineError::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    record.name
                )));
            }
            (Status::Created | Status::Exited, _) => {
                let mut inner = container.lock();
                if inner.pending_attaches.len() >= PENDING_ATTACHES_MAX {
                    return Err(EngineError::new(
                        berth_types::ErrorClass::ResourceExhausted,
                        format!(
                            "{PENDING_ATTACHES_MAX} clients already wait for the start of container {}",
                            record.name
                        ),
                    ));
                }
                inner.pending_attaches.push((client, options));
            }
            _ => {
                return Err(EngineError::conflict(format!("container {} cannot be attached to now", record.name)));
            }
        }
        self.emit_container(&record, "attach", &[]);
        Ok(())
    }

    /// Writes what the log has to the client, framed as the stream after it will be.
    async fn replay_log(&self, container_ref: &str, client: OwnedFd, options: &AttachOptions) -> Result<OwnedFd> {
        let is_raw = self.has_terminal(container_ref).await?;
        let log = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
        let mut lines = self.logs(container_ref, log).await?;
        let lost = |error: std::io::Error| {
            EngineError::new(berth_types::ErrorClass::Unavailable, format!("the attached client has gone: {error}"))
        };
        let stream = std::os::unix::net::UnixStream::from(client);
        stream.set_nonblocking(true).map_err(lost)?;
        let mut stream = tokio::net::UnixStream::from_std(stream).map_err(lost)?;
        while let Some(lines) = lines.recv().await {
            use tokio::io::AsyncWriteExt as _;
            let mut piece = Vec::with_capacity(lines.text_bytes() + 8 * lines.len());
            for line in lines.iter() {
                if !is_raw {
                    let length = u32::try_from(line.text.len()).unwrap_or(u32::MAX).to_be_bytes();
                    piece.extend_from_slice(&[if line.is_stderr { 2 } else { 1 }, 0, 0, 0]);
                    piece.extend_from_slice(&length);
                }
                piece.extend_from_slice(line.text);
            }
            stream.write_all(&piece).await.map_err(lost)?;
        }
        Ok(OwnedFd::from(stream.into_std().map_err(lost)?))
    }

    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn resize(&self, container_ref: &str, rows: u16, columns: u16) -> Result<()> {
        if let Some(foreign) = self.foreign(container_ref) {
            return Ok(self.foreign_ready(&foreign).await?.shim.resize_pty(None, rows, columns).await?);
        }
        let container = self.find(container_ref)?;
        self.live(&container).await?.task.resize(None, rows, columns).await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.emit_container(&container.record(), "resize", &size);
        Ok(())
    }

    /// The container has a terminal: output is raw, not multiplexed.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn has_terminal(&self, container_ref: &str) -> Result<bool> {
        match self.foreign(container_ref) {
            Some(foreign) => {
                let view = self.foreign_view(&foreign).await;
                Ok(view.is_some_and(|view| view.config.tty))
            }
            None => Ok(self.find(container_ref)?.lock().record.config.tty),
        }
    }
}
