//! Exec records on disk, in the container's bundle, so that a daemon after us knows the processes that live on and the codes of those
//! that ended. Not flushed: like the bundle they mean nothing after a reboot.
//!
//! ```text
//! <state>/tasks/<container>/exec-<id>.json     {"version": 1, "config", "exit_code"}
//! ```

use std::sync::Arc;

use berth_shim_client::TaskState;
use berth_types::{ContainerId, ExecId};
use serde::{Deserialize, Serialize};

use super::records::{Exec, ExecState};
use crate::api::ExecConfig;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    config: ExecConfig,
    /// `None`: it was about to be started, or it runs.
    exit_code: Option<i32>,
}

fn file_name(exec_id: &str) -> String {
    format!("exec-{exec_id}.json")
}

impl Engine {
    pub(super) fn keep_exec(&self, exec: &Exec, exit_code: Option<i32>) -> Result<()> {
        let kept = Kept { version: VERSION, config: exec.config.clone(), exit_code };
        let json = serde_json::to_vec(&kept)
            .map_err(|error| EngineError::internal(format!("cannot encode an exec: {error}")))?;
        let bundle = self.inner.tasks.bundle(&exec.container_id);
        Ok(bundle.write(&file_name(exec.id.as_str()), 0o600, &json)?)
    }

    pub(super) fn forget_exec(&self, container_id: &ContainerId, exec_id: &str) {
        // It goes with the bundle at the latest.
        drop(std::fs::remove_file(self.inner.tasks.bundle(container_id).file(&file_name(exec_id))));
    }

    /// Takes back what runs in a task that was found again. `is_told`: the end of this exec is in the event log.
    pub(crate) async fn restore_execs(
        &self,
        container: &Arc<Container>,
        run: &Arc<Run>,
        is_told: impl Fn(&str) -> bool,
    ) {
        let entries = std::fs::read_dir(run.task.bundle().path()).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix("exec-")?.strip_suffix(".json"));
            let Some(id) = id.and_then(|id| id.parse::<ExecId>().ok()) else { continue };
            let kept = std::fs::read(entry.path()).ok().and_then(|json| serde_json::from_slice::<Kept>(&json).ok());
            let Some(kept) = kept.filter(|kept| kept.version == VERSION) else {
                tracing::warn!(container_id = %container.id, exec_id = %id, "record of a process is unreadable");
                self.forget_exec(&container.id, id.as_str());
                continue;
            };
            let is_told = is_told(id.as_str());
            self.restore_exec(container, run, id, kept, is_told).await;
        }
    }

    async fn restore_exec(&self, container: &Arc<Container>, run: &Arc<Run>, id: ExecId, kept: Kept, is_told: bool) {
        let state = run.task.exec_state(&id).await.ok();
        let mut exec = Exec {
            id,
            container_id: container.id.clone(),
            config: kept.config,
            state: kept.exit_code.map_or(ExecState::Running, ExecState::Ended),
            pid: state.as_ref().map_or(0, |state| state.pid),
            spans: Vec::new(),
        };
        let found = state.as_ref().map(|state| state.state);
        match (kept.exit_code, found) {
            // Killed before it was started, or while it was removed.
            (None, None | Some(TaskState::Created)) => {
                self.discard_exec(container, run, &exec.id).await;
                return;
            }
            (Some(_), None) => exec.pid = 0,
            _ => {}
        }
        if let Err(error) = self.inner.execs.add(exec.clone()) {
            tracing::warn!(container_id = %container.id, exec_id = %exec.id, "a process is not taken back: {error}");
            return;
        }
        match found {
            Some(TaskState::Running | TaskState::Paused | TaskState::Unknown) => {
                self.exec_supervise(Arc::clone(container), Arc::clone(run), exec);
            }
            Some(TaskState::Stopped) => {
                let code =
                    state.and_then(|state| state.exit).map_or(255, |exit| i32::try_from(exit.code).unwrap_or(255));
                self.exec_ended(container, run, &exec, code, is_told).await;
            }
            _ => {}
        }
    }
}
