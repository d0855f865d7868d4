//! The restart monitor: containers whose labels ask for it are started again, as containerd's plugin `restart` does it.
//!
//! ```text
//! containerd.io/restart.status              running | stopped: what it should be; anything else is not watched
//! containerd.io/restart.policy              always (also when empty) | on-failure[:max] | unless-stopped | no
//! containerd.io/restart.count               restarts so far; kept here
//! containerd.io/restart.explicitly-stopped  true: a client stopped it (`unless-stopped` obeys)
//! containerd.io/restart.loguri              where its output goes; else nowhere
//! ```
//! It asks this face's own services, as a client would, so that events and checks are the same. A look at all containers follows an exit or
//! a change by [`SETTLE`]; one container is started once in [`PERIOD`] at most. Nobody is woken while no container is watched.
//! Containers of Docker's face have the engine's policy instead.

mod policy;

pub(crate) use policy::POLICIES;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use berth_containerd_api::containerd::services::containers::v1::containers_server::Containers;
use berth_containerd_api::containerd::services::containers::v1::{Container, UpdateContainerRequest};
use berth_containerd_api::containerd::services::snapshots::v1::MountsRequest;
use berth_containerd_api::containerd::services::snapshots::v1::snapshots_server::Snapshots;
use berth_containerd_api::containerd::services::tasks::v1::tasks_server::Tasks;
use berth_containerd_api::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use berth_containerd_api::containerd::v1::types::{Process, Status as TaskStatus};
use berth_core::Tenant;
use berth_core::events::Origin;
use berth_core::objects::ContainerObject;
use berth_types::{Labels, Timestamp};
use tonic::{Code, Request, Status};

use crate::Face;
use crate::tenant::request_for;
use policy::{Seen, Wanted, due};

/// containerd's interval.
const PERIOD: Duration = Duration::from_secs(10);
/// A client that stops or removes a container has this long for its next call.
const SETTLE: Duration = Duration::from_secs(1);
const SIGKILL: u32 = 9;

/// When each container was started by us the last time.
type Starts = HashMap<(Tenant, String), Instant>;

impl Face {
    /// Watches for as long as it is polled.
    pub(crate) async fn monitor_restarts(self) {
        let mut starts = Starts::new();
        loop {
            let mut changes = self.engine.event_log().subscribe(Origin::Now);
            let is_watching = match self.reconcile(&mut starts).await {
                Ok(is_watching) => is_watching,
                Err(error) => {
                    tracing::warn!("restart monitor: {}", error.message());
                    true
                }
            };
            // A reader that was too slow has missed something: that is a change, too.
            let changed =
                async { while changes.next().await.is_ok_and(|event| !is_change(event.envelope.as_deref())) {} };
            if is_watching {
                let rest = starts.values().map(|at| PERIOD.saturating_sub(at.elapsed())).min();
                tokio::time::timeout(rest.unwrap_or(PERIOD), changed).await.ok();
            } else {
                changed.await;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Looks at every container once; whether there is one to watch.
    async fn reconcile(&self, starts: &mut Starts) -> Result<bool, Status> {
        let all = self.objects(|objects| objects.list_all::<ContainerObject>()).await?;
        let watched: Vec<(Tenant, ContainerObject)> =
            all.into_iter().filter(|(_, object)| Wanted::of(&object.labels).is_some()).collect();
        starts.retain(|(tenant, id), at| {
            at.elapsed() < PERIOD && watched.iter().any(|(owner, object)| owner == tenant && object.id == *id)
        });
        for (tenant, object) in &watched {
            if let Err(error) = self.bring_to(tenant, object, starts).await {
                tracing::warn!(container_id = object.id, "restart monitor: {}", error.message());
            }
        }
        Ok(!watched.is_empty())
    }

    /// What its labels ask for, where that is due.
    async fn bring_to(&self, tenant: &Tenant, object: &ContainerObject, starts: &mut Starts) -> Result<(), Status> {
        let seen = self.seen(tenant, object).await?;
        let key = (tenant.clone(), object.id.clone());
        match due(&object.labels, seen, age(object.updated_at)) {
            Some(Wanted::Running) if !starts.contains_key(&key) => {
                starts.insert(key, Instant::now());
                self.start_again(tenant, object).await
            }
            Some(Wanted::Stopped) => self.end_task(tenant, &object.id).await,
            _ => Ok(()),
        }
    }

    /// A task whose shim does not answer now is not taken for one that has ended: what runs is not killed for that.
    async fn seen(&self, tenant: &Tenant, object: &ContainerObject) -> Result<Seen, Status> {
        let request = GetRequest { container_id: object.id.clone(), ..Default::default() };
        match self.get_task(request_for(tenant, request)?).await {
            Ok(process) => Ok(Seen::Task(process.status(), process.exit_status)),
            Err(error) if error.code() == Code::NotFound => Ok(Seen::NoTask),
            Err(error) => Err(error),
        }
    }

    async fn get_task(&self, request: Request<GetRequest>) -> Result<Process, Status> {
        Tasks::get(self, request)
            .await?
            .into_inner()
            .process
            .ok_or_else(|| Status::internal("a task without a process"))
    }

    async fn start_again(&self, tenant: &Tenant, object: &ContainerObject) -> Result<(), Status> {
        let id = &object.id;
        let count = policy::count(&object.labels).saturating_add(1);
        let labels: Labels = [(policy::COUNT.to_owned(), count.to_string())].into();
        let update = UpdateContainerRequest {
            container: Some(Container { id: id.clone(), labels, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec![format!("labels.{}", policy::COUNT)] }),
        };
        Containers::update(self, request_for(tenant, update)?).await?;
        self.end_task(tenant, id).await?;
        let mut rootfs = Vec::new();
        if !object.snapshot_key.is_empty() {
            let request = MountsRequest { snapshotter: object.snapshotter.clone(), key: object.snapshot_key.clone() };
            rootfs = Snapshots::mounts(self, request_for(tenant, request)?).await?.into_inner().mounts;
        }
        let terminal = object.wants_terminal();
        let log = object.labels.get(policy::LOG_URI).cloned().unwrap_or_default();
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            // A terminal has one stream.
            stderr: if terminal { String::new() } else { log.clone() },
            stdout: log,
            terminal,
            ..Default::default()
        };
        Tasks::create(self, request_for(tenant, request)?).await?;
        let request = StartRequest { container_id: id.clone(), ..Default::default() };
        Tasks::start(self, request_for(tenant, request)?).await?;
        tracing::info!(container_id = id, restart_count = count, "started again by its restart policy");
        Ok(())
    }

    /// Ends and deletes the task, if there is one.
    async fn end_task(&self, tenant: &Tenant, id: &str) -> Result<(), Status> {
        let container_id = id.to_owned();
        let request = GetRequest { container_id: container_id.clone(), ..Default::default() };
        match self.get_task(request_for(tenant, request)?).await {
            Err(error) if error.code() == Code::NotFound => return Ok(()),
            Ok(process) if process.status() == TaskStatus::Stopped => {}
            _ => {
                let request = KillRequest {
                    container_id: container_id.clone(),
                    signal: SIGKILL,
                    all: true,
                    ..Default::default()
                };
                Tasks::kill(self, request_for(tenant, request)?).await?;
                let request = WaitRequest { container_id: container_id.clone(), ..Default::default() };
                Tasks::wait(self, request_for(tenant, request)?).await?;
            }
        }
        Tasks::delete(self, request_for(tenant, DeleteTaskRequest { container_id })?).await.map(drop)
    }
}

/// Whether something happened after which a container may have to be started.
fn is_change(envelope: Option<&berth_core::events::Envelope>) -> bool {
    let topics = ["/tasks/exit", "/tasks/delete", "/containers/create", "/containers/update"];
    envelope.is_some_and(|envelope| topics.contains(&envelope.topic.as_str()))
}

fn age(since: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(Timestamp::now().0.saturating_sub(since.0)).unwrap_or_default())
}
