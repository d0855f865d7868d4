//! The persisted record of a container: what was asked, and the state a restart needs. Version 1; unknown fields are ignored.

use std::sync::Arc;

use berth_network::Endpoint;
use berth_types::{ContainerId, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{MountView, Status};
use crate::config::{ContainerConfig, HostConfig};
use crate::volumes::BoundVolume;
use crate::why::end::{End, PastEnd};

pub(crate) const RECORD_VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) config: Arc<ContainerConfig>,
    pub(crate) host: Arc<HostConfig>,
    pub(crate) image_id: Digest,
    /// As the client named it.
    pub(crate) image_name: String,
    #[serde(default)]
    pub(crate) mounts: Vec<MountView>,
    /// Its volumes, named and anonymous, each with its place.
    #[serde(default)]
    pub(crate) volumes: Vec<BoundVolume>,
    /// First host id of the container's own 65536-block (`userns_mode` auto and private).
    #[serde(default)]
    pub(crate) id_block: Option<u32>,
    #[serde(default)]
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) state: RunState,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) exit_code: i32,
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) oom_killed: bool,
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) finished_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) restart_count: u32,
    /// `stop`, `kill` or `rm` by a person: `unless-stopped` and `always` differ by it.
    #[serde(default)]
    pub(crate) stopped_by_user: bool,
    /// Of the run at hand or the last one.
    #[serde(default)]
    pub(crate) end: End,
    /// How the latest runs ended, this one included.
    #[serde(default)]
    pub(crate) past: Vec<PastEnd>,
}

impl RunState {
    pub(crate) fn created() -> Self {
        Self {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            stopped_by_user: false,
            end: End::default(),
            past: Vec::new(),
        }
    }

    /// A process of it exists.
    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

impl Record {
    /// Entrypoint and command as one argument vector.
    pub(crate) fn argv(&self) -> Vec<String> {
        let parts = [self.config.entrypoint.as_deref(), self.config.cmd.as_deref()];
        parts.into_iter().flatten().flatten().cloned().collect()
    }
}
