//! Containers made through containerd's API in the tenant `default`, as Docker's face shows and ends them.
//!
//! Their record is core's, their task the fleet's; nothing of them is kept here. What Docker's API can say of them is said and what it can do is
//! done; the rest (start, logs, cp, commit …: their maker holds the output and the document) is refused by name in [`Engine::find`].

mod exec;
mod look;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_core::events::{Envelope, Occurrence};
use berth_core::fleet::Member;
use berth_core::objects::{AnyValue, ContainerObject, Tenant};
use berth_shim_client::{StateReply, TaskState};
use berth_types::{Classify as _, Digest, ErrorClass, Signal, Timestamp};

use crate::api::{ContainerView, NetworkView, Status};
use crate::config::{ContainerConfig, HostConfig};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::lifecycle::KILL_WAIT;

const DEFAULT_STOP: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    pub(crate) object: ContainerObject,
    pub(crate) member: Option<Arc<Member>>,
}

impl Engine {
    /// An id or name of either kind before the beginning of an id of either kind, and the engine's own first of both.
    pub(crate) fn foreign(&self, container_ref: &str) -> Option<Foreign> {
        if container_ref.is_empty() || self.inner.registry.is_exact(container_ref) {
            return None;
        }
        let name = container_ref.strip_prefix('/').unwrap_or(container_ref);
        if let Some(exact) = self.foreign_named(name) {
            return Some(exact);
        }
        if self.inner.registry.find(container_ref).is_ok() {
            return None;
        }
        let mut fits = self.foreign_objects().into_iter().filter(|object| object.id.starts_with(name));
        let first = fits.next()?;
        fits.next().is_none().then(|| self.with_member(first))
    }

    /// By full id, or the name that Docker's face gave it.
    pub(crate) fn foreign_named(&self, name: &str) -> Option<Foreign> {
        let is_named = |object: &ContainerObject| object.labels.get(look::NAME_LABEL).is_some_and(|own| own == name);
        match self.inner.objects.find::<ContainerObject>(&Tenant::docker(), name) {
            Ok(Some(object)) => Some(object),
            // Told by the listing, too.
            Ok(None) | Err(_) => self.foreign_objects().into_iter().find(is_named),
        }
        .map(|object| self.with_member(object))
    }

    fn foreign_objects(&self) -> Vec<ContainerObject> {
        self.inner.objects.list::<ContainerObject>(&Tenant::docker()).unwrap_or_else(|error| {
            tracing::warn!("containers of containerd's API cannot be read: {}", berth_types::report(&error));
            Vec::new()
        })
    }

    fn with_member(&self, object: ContainerObject) -> Foreign {
        let member = self.inner.fleet.member(&Tenant::docker(), &object.id).ok();
        Foreign { object, member }
    }

    pub(crate) async fn foreign_views(&self) -> Vec<ContainerView> {
        let mut views = Vec::new();
        for object in self.foreign_objects() {
            let foreign = self.with_member(object);
            views.extend(self.foreign_view(&foreign).await);
        }
        views
    }

    /// `None` for an id that Docker could not name.
    pub(crate) async fn foreign_view(&self, foreign: &Foreign) -> Option<ContainerView> {
        let state = match &foreign.member {
            Some(member) => member.shim.state(None).await.ok(),
            None => None,
        };
        let object = &foreign.object;
        let argv = argv(object);
        let (status, exit_code, finished_at) = status_of(state.as_ref());
        let alive = matches!(status, Status::Running | Status::Paused);
        let upper = PathBuf::new();
        Some(ContainerView {
            id: object.id.parse().ok()?,
            name: foreign.name().to_owned(),
            created: object.created_at,
            path: argv.first().cloned().unwrap_or_default(),
            args: argv.get(1..).unwrap_or_default().to_vec(),
            config: Arc::new(ContainerConfig {
                image: object.image.clone(),
                cmd: Some(argv),
                labels: object.labels.clone(),
                tty: state.as_ref().is_some_and(|state| state.io.terminal),
                ..ContainerConfig::default()
            }),
            host_config: Arc::new(HostConfig { network_mode: "none".to_owned(), ..HostConfig::default() }),
            image_id: self.foreign_image(object),
            image_name: object.image.clone(),
            status,
            pid: if alive { state.as_ref().map_or(0, |state| state.pid) } else { 0 },
            exit_code,
            error: String::new(),
            oom_killed: false,
            started_at: alive.then_some(object.created_at),
            finished_at,
            restart_count: 0,
            network: NetworkView { mode: "none".to_owned(), ..NetworkView::default() },
            mounts: Vec::new(),
            log_path: PathBuf::new(),
            resolv_conf_path: PathBuf::new(),
            hostname_path: PathBuf::new(),
            hosts_path: PathBuf::new(),
            driver: "overlay2".to_owned(),
            upper_dir: upper.clone(),
            work_dir: upper,
            lower_dirs: Vec::new(),
            exec_ids: Vec::new(),
            kernel: None,
            size_rw: None,
            size_rootfs: None,
        })
    }

    /// The config's digest where the image is one of Docker's too, else the digest its name points at; all zeros for an image nobody knows.
    fn foreign_image(&self, object: &ContainerObject) -> Digest {
        let images = &self.inner.images;
        let known = images.get(&object.image).ok().map(|image| image.id);
        let named = || images.tenant(Tenant::docker().as_str()).and_then(|t| t.image(&object.image)).ok();
        known.or_else(|| named().map(|image| image.target.digest)).unwrap_or_else(|| Digest::from_bytes([0; 32]))
    }

    /// `stop`: true when it ran.
    pub(crate) async fn foreign_stop(
        &self,
        foreign: &Foreign,
        signal: Option<Signal>,
        timeout_seconds: Option<i64>,
    ) -> Result<bool> {
        let Some(member) = foreign.running().await else { return Ok(false) };
        let timeout = match timeout_seconds {
            Some(seconds) => u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs),
            None => DEFAULT_STOP,
        };
        if !timeout.is_zero() {
            match member.shim.kill(None, signal.unwrap_or(Signal::TERM), false).await {
                // It has ended by itself; its clients still read what it wrote.
                Err(error) if error.class() == ErrorClass::NotFound => {}
                asked => asked?,
            }
            if tokio::time::timeout(timeout, member.shim.wait(None)).await.is_ok() {
                return Ok(true);
            }
        }
        self.foreign_kill_all(&member).await?;
        Ok(true)
    }

    async fn foreign_kill_all(&self, member: &Member) -> Result<()> {
        let killed = member.shim.kill(None, Signal::KILL, true).await;
        match tokio::time::timeout(KILL_WAIT, member.shim.wait(None)).await {
            Ok(_) => Ok(()),
            Err(_) => {
                killed?;
                Err(EngineError::internal("processes of the container do not end after SIGKILL"))
            }
        }
    }

    pub(crate) async fn foreign_kill(&self, foreign: &Foreign, signal: Option<Signal>) -> Result<()> {
        let member = foreign.running().await.ok_or_else(|| foreign.not_running())?;
        let signal = signal.unwrap_or(Signal::KILL);
        let is_end = signal == Signal::KILL;
        member.shim.kill(None, signal, is_end).await?;
        if is_end {
            drop(tokio::time::timeout(KILL_WAIT, member.shim.wait(None)).await);
        }
        Ok(())
    }

    pub(crate) async fn foreign_pause(&self, foreign: &Foreign, is_pause: bool) -> Result<()> {
        let member = foreign.running().await.ok_or_else(|| foreign.not_running())?;
        let done = if is_pause { member.shim.pause().await } else { member.shim.resume().await };
        Ok(done?)
    }

    /// Waits for the end of its task; without one, at once.
    pub(crate) async fn foreign_wait(&self, foreign: &Foreign) -> Result<i32> {
        let Some(member) = &foreign.member else { return Ok(0) };
        let status = member.shim.wait(None).await?;
        Ok(i32::try_from(status.code).unwrap_or(255))
    }

    /// Task, record and snapshot, as `ctr` would remove them one by one.
    pub(crate) async fn foreign_remove(&self, foreign: &Foreign, force: bool) -> Result<()> {
        let (tenant, id) = (Tenant::docker(), foreign.object.id.clone());
        if let Some(member) = foreign.running().await {
            if !force {
                return Err(EngineError::conflict(format!("cannot remove container \"/{id}\": container is running: stop the container before removing or force remove"))
                    .with_hint(format!("berth rm -f {id}")));
            }
            self.foreign_kill_all(&member).await?;
        }
        if foreign.member.is_some() {
            match self.inner.fleet.delete(&tenant, &id).await {
                Err(berth_core::fleet::FleetError::NotFound { .. }) => {}
                other => drop(other?),
            }
        }
        let snapshot = foreign.object.snapshot_key.clone();
        let gone = id.clone();
        self.blocking(move |engine| {
            let tenant = Tenant::docker();
            engine.inner.objects.delete::<ContainerObject>(&tenant, &gone)?;
            if !snapshot.is_empty()
                && let Err(error) = engine.inner.images.tenant(tenant.as_str())?.snapshots().remove(&snapshot)
            {
                tracing::debug!(container_id = gone, "its snapshot stays: {}", berth_types::report(&error));
            }
            Ok(())
        })
        .await?;
        if let Ok(container_id) = foreign.object.id.parse() {
            self.inner.execs.forget_container(&container_id);
        }
        self.record(destroyed(&foreign.object));
        Ok(())
    }
}

impl Foreign {
    async fn running(&self) -> Option<Arc<Member>> {
        let member = self.member.as_ref()?;
        let state = member.shim.state(None).await;
        let is_alive = state.is_ok_and(|state| state.state != TaskState::Stopped);
        is_alive.then(|| Arc::clone(member))
    }

    fn not_running(&self) -> EngineError {
        EngineError::conflict(format!("container {} is not running", self.object.id))
    }
}

fn argv(object: &ContainerObject) -> Vec<String> {
    let spec: Option<serde_json::Value> = object.spec.as_ref().and_then(|any| serde_json::from_slice(&any.value).ok());
    let words = spec.as_ref().and_then(|spec| spec.pointer("/process/args")?.as_array());
    words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// A container without a task has not run, as far as anybody still knows.
fn status_of(state: Option<&StateReply>) -> (Status, i32, Option<Timestamp>) {
    let Some(state) = state else { return (Status::Created, 0, None) };
    match (state.state, state.exit) {
        (TaskState::Created, _) => (Status::Created, 0, None),
        (TaskState::Running | TaskState::Unknown, _) => (Status::Running, 0, None),
        (TaskState::Paused, _) => (Status::Paused, 0, None),
        (TaskState::Stopped, exit) => {
            let code = exit.map_or(0, |exit| i32::try_from(exit.code).unwrap_or(255));
            (Status::Exited, code, exit.map(|exit| exit.exited_at))
        }
    }
}

/// `/containers/delete` in both faces' words; its message is the id as field 1.
fn destroyed(object: &ContainerObject) -> Occurrence {
    let length = u8::try_from(object.id.len()).unwrap_or_default();
    let value = [&[0x0a, length], object.id.as_bytes()].concat();
    let event = AnyValue { type_url: "containerd.events.ContainerDelete".to_owned(), value };
    let envelope = Envelope { namespace: Tenant::docker().to_string(), topic: "/containers/delete".to_owned(), event };
    Occurrence {
        kind: "container",
        action: "destroy".to_owned(),
        actor_id: object.id.clone(),
        attributes: [("name".to_owned(), object.id.clone()), ("image".to_owned(), object.image.clone())].into(),
        pid: 0,
        envelope: Some(Box::new(envelope)),
    }
}
