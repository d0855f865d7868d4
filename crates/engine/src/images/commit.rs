//! `commit`: the container's writable layer becomes an image's newest layer.

use berth_image::CommitOptions;
use berth_types::{Digest, Reference};
use serde_json::{Map, Value, json};

use crate::api::{CommitRequest, Status};
use crate::config::ContainerConfig;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::error::Result;

/// File of the bundle while a commit holds the container.
pub(crate) const COMMIT_PAUSE: &str = "paused-by-commit";

impl Engine {
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a bad name or instruction.
    pub async fn commit(&self, request: CommitRequest) -> Result<Digest> {
        let container = self.find(&request.container_ref)?;
        let reference = match &request.reference {
            Some(text) => Some(text.parse::<Reference>()?.with_default_tag()),
            None => None,
        };
        // Nobody may stop or remove it meanwhile.
        let _operation = container.operation.lock().await;
        container.ensure_present()?;
        let run = container.running().ok().filter(|_| request.pause && container.status() == Status::Running);
        if let Some(run) = &run {
            self.pause_for_commit(&container, run).await?;
        }
        self.inner.faults.pass("commit.pause");
        let target = std::sync::Arc::clone(&container);
        let shown = reference.clone();
        let committed = self
            .heavy(move |engine| {
                let record = target.record();
                let base = engine.inner.images.get_by_id(&record.image_id)?;
                let options = CommitOptions {
                    reference,
                    author: request.author,
                    message: request.message,
                    changes: request.changes,
                    config: image_config(&record.config),
                    created_by: record.argv().join(" "),
                    container_id: record.id.to_string(),
                };
                engine.inner.faults.check("commit.begin")?;
                let id = engine.inner.images.commit(&base, &engine.rootfs_of(&target)?, &options)?;
                engine.inner.faults.pass("commit.image");
                Ok(id)
            })
            .await;
        if let Some(run) = &run
            && let Err(error) = run.task.resume().await
        {
            tracing::error!(container_id = %container.id, "container stays paused after a commit: {}", berth_types::report(&error));
            self.set_alive_status(&container, Status::Paused);
        }
        self.forget_commit_pause(&container);
        self.inner.faults.pass("commit.resume");
        let id = committed?;
        let record = container.record();
        let name = shown.map(|r| r.familiar()).unwrap_or_default();
        self.emit_container(
            &record,
            "commit",
            &[("comment", String::new()), ("imageID", id.to_string()), ("imageRef", name.clone())],
        );
        self.emit_image("create", &id.to_string(), &name);
        self.inner.faults.pass("commit.told");
        Ok(id)
    }

    /// With a mark for a daemon after us: it resumes the container, since this pause was no person's.
    async fn pause_for_commit(&self, container: &Container, run: &Run) -> Result<()> {
        self.inner.tasks.bundle(&container.id).write(COMMIT_PAUSE, 0o600, b"")?;
        let paused = run.task.pause().await;
        if paused.is_err() {
            self.forget_commit_pause(container);
        }
        Ok(paused?)
    }

    fn forget_commit_pause(&self, container: &Container) {
        // Usually without one; a mark that stays does harm only to a container that a person pauses before the next commit.
        drop(std::fs::remove_file(self.inner.tasks.bundle(&container.id).file(COMMIT_PAUSE)));
    }
}

/// The container's config in the image-spec's words.
fn image_config(config: &ContainerConfig) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value, is_set: bool| {
        if is_set {
            map.insert(key.to_owned(), value);
        }
    };
    let set = |items: &[String]| Value::Object(items.iter().map(|item| (item.clone(), json!({}))).collect());
    put("User", json!(config.user), !config.user.is_empty());
    put("Env", json!(config.env), !config.env.is_empty());
    put("Entrypoint", json!(config.entrypoint), config.entrypoint.is_some());
    put("Cmd", json!(config.cmd), config.cmd.is_some());
    put("WorkingDir", json!(config.working_dir), !config.working_dir.is_empty());
    put("Labels", json!(config.labels), !config.labels.is_empty());
    put("ExposedPorts", set(&config.exposed_ports), !config.exposed_ports.is_empty());
    put("Volumes", set(&config.volumes), !config.volumes.is_empty());
    put("StopSignal", json!(config.stop_signal), !config.stop_signal.is_empty());
    Value::Object(map)
}
