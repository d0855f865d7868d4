//! The sandbox of this shim: a pod. Its own process holds the namespaces that the containers of the pod join, and is a task like others, made
//! of a completed document ([`document`]), whose life is told by the Sandbox service alone: nobody hears events of it.
//!
//! ```text
//! CreateSandbox: document -> task created     StartSandbox: task started     (Create, Start, … of containers with other ids)
//! StopSandbox: containers, then the pod's process are killed     ShutdownSandbox: everything deleted, the shim ends
//! ```
//! A shim with a sandbox outlives its containers and ends by ShutdownSandbox alone.

mod document;
mod pause;
mod pod;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::protobuf::well_known_types::any::Any;
use berth_proto::task::Mount;
use berth_types::{Signal, Timestamp};

pub(crate) use service::SandboxService;

use crate::error::TaskError;
use crate::log;
use crate::process::{Addresses, Exit, Process, Status};
use crate::task::{CreateRequest, Options, Shim};
use document::Asked;

/// For a killed process to be collected, and its output to be delivered.
const END: Duration = Duration::from_secs(10);
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// What an engine asks for.
#[derive(Debug, Default)]
pub(crate) struct NewSandbox {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) options: Option<Any>,
    /// Empty: none.
    pub(crate) netns_path: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The pod of this shim, from its creation to the shim's end.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) created_at: Timestamp,
    /// The completed document.
    document: Vec<u8>,
    /// `None`: it is being made.
    process: Option<Arc<Process>>,
}

/// What it is now.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) pid: u32,
    pub(crate) status: Status,
    pub(crate) created_at: Timestamp,
    /// JSON.
    pub(crate) document: Vec<u8>,
}

impl Shim {
    /// Makes the pod's namespaces and its process, which waits.
    pub(crate) async fn create_sandbox(self: &Arc<Self>, new: NewSandbox) -> Result<(), TaskError> {
        if new.id != self.id() {
            return Err(TaskError::Argument { what: "sandbox id (this shim was started for another)", value: new.id });
        }
        let config = match crate::task::read_bounded(&new.bundle.join("config.json"), CONFIG_BYTES_MAX) {
            // An engine that has no document for a pod writes none.
            Err(TaskError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let completed = document::complete(Asked {
            namespace: &self.surroundings.namespace,
            id: &new.id,
            config: &config,
            options: new.options.as_ref(),
            netns_path: &new.netns_path,
            annotations: new.annotations,
        })?;
        let mut rootfs = new.rootfs;
        if completed.is_pause {
            if !rootfs.is_empty() {
                let value = "a root file system, and no process to run in it".to_owned();
                return Err(TaskError::Argument { what: "sandbox", value });
            }
            let failed = |source| TaskError::Read { path: new.bundle.clone(), source };
            rootfs.push(pause::root(&new.bundle).map_err(failed)?);
        }
        let json = completed.json;
        let sandbox = Sandbox { created_at: Timestamp::now(), document: json.clone(), process: None };
        {
            let mut current = self.sandbox();
            if current.is_some() {
                return Err(TaskError::TaskExists { id: new.id });
            }
            *current = Some(sandbox);
        }
        let made = self.make_sandbox(&new.id, new.bundle, rootfs, json).await;
        if made.is_err() {
            *self.sandbox() = None;
        }
        made
    }

    async fn make_sandbox(
        self: &Arc<Self>,
        id: &str,
        bundle: PathBuf,
        rootfs: Vec<Mount>,
        document: Vec<u8>,
    ) -> Result<(), TaskError> {
        let request = CreateRequest {
            id: id.to_owned(),
            bundle,
            rootfs,
            addresses: Addresses::default(),
            options: Options::default(),
            checkpoint: None,
            document: Some(document),
        };
        self.create(request).await?;
        let process = self.process(id, "")?;
        if let Some(sandbox) = self.sandbox().as_mut() {
            sandbox.process = Some(process);
        }
        Ok(())
    }

    /// Lets it run; its pid on the host, and since when it is.
    pub(crate) async fn start_sandbox(self: &Arc<Self>, id: &str) -> Result<(u32, Timestamp), TaskError> {
        let standing = self.standing(id)?;
        let pid = self.start(id, "").await?;
        Ok((pid, standing.created_at))
    }

    pub(crate) fn standing(&self, id: &str) -> Result<Standing, TaskError> {
        let process = self.sandbox_process(id)?;
        let sandbox = self.sandbox();
        let (created_at, document) = sandbox
            .as_ref()
            .map(|sandbox| (sandbox.created_at, sandbox.document.clone()))
            .ok_or_else(|| TaskError::NoSandbox { id: id.to_owned() })?;
        Ok(Standing { pid: process.pid(), status: process.status(), created_at, document })
    }

    /// Returns when its process has ended.
    pub(crate) async fn wait_sandbox(&self, id: &str) -> Result<Exit, TaskError> {
        let process = self.sandbox_process(id)?;
        Ok(process.exited().await)
    }

    fn sandbox_process(&self, id: &str) -> Result<Arc<Process>, TaskError> {
        let found = self.sandbox().as_ref().and_then(|sandbox| sandbox.process.clone());
        found.filter(|process| process.task_id == id).ok_or_else(|| TaskError::NoSandbox { id: id.to_owned() })
    }

    /// Asks the containers to end (`SIGTERM`) and gives them `patience`; then all of the pod is killed.
    pub(crate) async fn stop_sandbox(&self, id: &str, patience: Duration) -> Result<(), TaskError> {
        let own = self.sandbox_process(id)?;
        let containers = self.inits(|task| task != id);
        if !patience.is_zero() {
            self.signal_all(&containers, Signal::TERM).await;
            tokio::time::timeout(patience, all_exited(&containers)).await.ok();
        }
        self.signal_all(&containers, Signal::KILL).await;
        self.signal_all(std::slice::from_ref(&own), Signal::KILL).await;
        let all = [containers.as_slice(), &[own]].concat();
        match tokio::time::timeout(END, all_exited(&all)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(TaskError::SandboxLives { id: id.to_owned() }),
        }
    }

    /// Those that are created get only what ends them.
    async fn signal_all(&self, processes: &[Arc<Process>], signal: Signal) {
        for process in processes.iter().filter(|process| !matches!(process.status(), Status::Exited(_))) {
            let number = u32::try_from(signal.number()).unwrap_or_default();
            if let Err(error) = self.kill(&process.task_id, "", number, false).await
                && !matches!(process.status(), Status::Exited(_))
            {
                log::warn(&format!("{}: {}", process.task_id, berth_types::report(&error)));
            }
        }
    }

    /// Ends the pod and all in it, and the shim. Without a sandbox it ends a shim that has no task.
    pub(crate) async fn shut_down_sandbox(self: &Arc<Self>, id: &str) -> Result<(), TaskError> {
        if self.sandbox().is_none() {
            return self.shut_down(false);
        }
        self.stop_sandbox(id, Duration::ZERO).await?;
        for process in self.inits(|task| task != id).into_iter().chain(self.inits(|task| task == id)) {
            let id = process.task_id.as_str();
            let deleted = tokio::time::timeout(END, self.delete(id, "")).await;
            match deleted {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => log::warn(&format!("{id}: {}", berth_types::report(&error))),
                Err(_) => log::warn(&format!("{id}: its output is not taken; it is given up")),
            }
        }
        self.shut_down(true)
    }
}

async fn all_exited(processes: &[Arc<Process>]) {
    for process in processes {
        process.exited().await;
    }
}
