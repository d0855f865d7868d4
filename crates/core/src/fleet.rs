//! The fleet: tasks of containers made through containerd's API, each on a shim of whatever kind its runtime names, of all tenants.
//!
//! ```text
//! <state>/shims/<tenant>/<id>/      0711, the bundle: config.json, rootfs/, what the shim puts there
//!                 bootstrap.json    where the shim listens
//!                 shim-binary-path  how to execute it again, to clean up after it
//!
//! create: reserve the id -> bundle -> shim start -> Create          delete: Delete -> Shutdown -> bundle
//! ```
//! Rules of the life cycle are the shim's; nothing is remembered here that it could be asked. Events come from the shims (`Events.Forward`),
//! except the last ones of a shim that died: those are told here, once.
//!
//! What it is not: the tasks of the engine's own containers ([`crate::task`]). Lock order: `members` is a leaf, never held across an await.

mod bundle;
mod checkpoint;
mod error;
mod member;
mod recovery;
mod runtime;
mod sandbox;
mod words;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use berth_shim_client::{CreateTask, Reports, ShimClient, ShimError, ShimOptions};
use berth_types::{ContainerId, ErrorClass, ExecId};
use parking_lot::Mutex;

use crate::SealedBinary;
use crate::events::{Envelope, EventLog};
use crate::objects::{AnyValue, ContainerObject, Tenant};

pub use checkpoint::CheckpointDir;
pub use error::FleetError;
pub use member::Member;
pub use runtime::restore_path;
pub use sandbox::SandboxMember;
pub use words::{container_of, docker_words};

use bundle::FleetBundle;

type Result<T> = std::result::Result<T, FleetError>;

/// Where things are.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// `<state>/shims`.
    pub dir: PathBuf,
    /// For the sockets of our own shims.
    pub socket_dir: PathBuf,
    /// Where shims tell of events, over ttrpc.
    pub events_address: PathBuf,
    /// containerd's API, as shims are told.
    pub grpc_address: PathBuf,
    /// Directories in which a runtime's shim is looked for, in order.
    pub search: Vec<PathBuf>,
}

/// What a new task is to be.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    pub task: CreateTask,
    /// Another shim binary than the runtime's name says.
    pub runtime_path: Option<PathBuf>,
}

/// All tasks of the fleet.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    own_shim: Arc<SealedBinary>,
    events: Arc<EventLog>,
    members: Mutex<HashMap<(Tenant, String), Slot>>,
    /// `None`: somebody is making it.
    sandboxes: Mutex<HashMap<(Tenant, String), MaybeSandbox>>,
    /// Of directories of checkpoints.
    checkpoints: AtomicU64,
}

type MaybeSandbox = Option<Arc<SandboxMember>>;

#[derive(Debug, Clone)]
enum Slot {
    /// Somebody is making it.
    Reserved,
    Member(Arc<Member>),
}

/// Gives the id free again unless the task came to be.
struct Reservation<'a> {
    fleet: &'a Fleet,
    key: (Tenant, String),
    is_kept: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.fleet.members.lock().remove(&self.key);
        }
    }
}

impl Fleet {
    pub fn new(options: FleetOptions, own_shim: Arc<SealedBinary>, events: Arc<EventLog>) -> Arc<Self> {
        Arc::new(Self {
            options,
            own_shim,
            events,
            members: Mutex::default(),
            sandboxes: Mutex::default(),
            checkpoints: AtomicU64::default(),
        })
    }

    /// # Errors
    /// `NotFound`.
    pub fn member(&self, tenant: &Tenant, id: &str) -> Result<Arc<Member>> {
        match self.members.lock().get(&(tenant.clone(), id.to_owned())) {
            Some(Slot::Member(member)) => Ok(Arc::clone(member)),
            _ => Err(FleetError::NotFound { id: id.to_owned() }),
        }
    }

    /// Whether there is a task of that id, or somebody is making one.
    pub fn is_taken(&self, tenant: &Tenant, id: &str) -> bool {
        self.members.lock().contains_key(&(tenant.clone(), id.to_owned()))
    }

    /// Of one tenant, sorted by id.
    pub fn members(&self, tenant: &Tenant) -> Vec<Arc<Member>> {
        let members = self.members.lock();
        let mut found: Vec<Arc<Member>> = members
            .values()
            .filter_map(|slot| match slot {
                Slot::Member(member) if member.tenant == *tenant => Some(Arc::clone(member)),
                _ => None,
            })
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Of every tenant.
    pub fn all_members(&self) -> Vec<Arc<Member>> {
        let members = self.members.lock();
        let found = members.values().filter_map(|slot| match slot {
            Slot::Member(member) => Some(Arc::clone(member)),
            Slot::Reserved => None,
        });
        found.collect()
    }

    /// Makes a task up to the point where its init waits.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for a runtime without a shim; the shim's own.
    pub async fn create(
        self: &Arc<Self>,
        tenant: &Tenant,
        object: &ContainerObject,
        new: NewTask,
    ) -> Result<Arc<Member>> {
        let mut reservation = self.reserve(tenant, &object.id)?;
        let runtime =
            new.runtime_path.as_ref().map_or_else(|| object.runtime.name.clone(), |p| p.display().to_string());
        let home = match object.sandbox.as_str() {
            "" => None,
            id => Some(self.sandbox(tenant, id)?),
        };
        let shim = match &home {
            Some(home) => home.shim_binary().clone(),
            None => runtime::find(&runtime, &self.options.search)?,
        };
        if shim == runtime::Shim::Own {
            runtime::check_options(new.task.options.as_ref(), object.runtime.options.as_ref())?;
        }
        let bundle = FleetBundle::create(&self.options.dir, tenant, &object.id, object.spec.as_ref(), &shim)?;
        let log = if home.is_none() { follow_log(&bundle, &object.id, &shim)? } else { None };
        let started = match &home {
            Some(home) => self.start_in(home, object, &bundle, &shim, new).await,
            None => self.start(tenant, object, &bundle, &shim, new).await,
        };
        let member = match started {
            Ok(member) => member,
            Err(error) => {
                match &home {
                    // The shim is the sandbox's and lives on; a clean-up by it would be one of the sandbox.
                    Some(_) => bundle.remove().unwrap_or_else(|e| tracing::warn!("{}", berth_types::report(&e))),
                    None => self.discard(tenant, &object.id, &bundle, &shim).await,
                }
                log.into_iter().for_each(|log| log.abort());
                return Err(error);
            }
        };
        member.set_log(log);
        reservation.is_kept = true;
        self.members.lock().insert(reservation.key.clone(), Slot::Member(Arc::clone(&member)));
        self.watch(&member);
        Ok(member)
    }

    fn reserve(&self, tenant: &Tenant, id: &str) -> Result<Reservation<'_>> {
        let key = (tenant.clone(), id.to_owned());
        let mut members = self.members.lock();
        if members.contains_key(&key) {
            return Err(FleetError::Exists { id: id.to_owned() });
        }
        members.insert(key.clone(), Slot::Reserved);
        Ok(Reservation { fleet: self, key, is_kept: false })
    }

    fn shim_options(
        &self,
        tenant: &Tenant,
        id: &str,
        bundle: &FleetBundle,
        shim: &runtime::Shim,
        options: Option<&AnyValue>,
    ) -> Result<ShimOptions> {
        let id: ContainerId = id.parse().map_err(|source| FleetError::Id { source })?;
        Ok(ShimOptions {
            binary: shim.executable(&self.own_shim),
            namespace: tenant.to_string(),
            id,
            bundle: bundle.path().to_owned(),
            socket_dir: self.options.socket_dir.clone(),
            events_address: self.options.events_address.clone(),
            grpc_address: self.options.grpc_address.clone(),
            runtime_options: options.map(|any| (any.type_url.clone(), any.value.clone())),
            reports: Reports::All,
            search: self.options.search.clone(),
        })
    }

    async fn start(
        &self,
        tenant: &Tenant,
        object: &ContainerObject,
        bundle: &FleetBundle,
        shim: &runtime::Shim,
        new: NewTask,
    ) -> Result<Arc<Member>> {
        let options = self.shim_options(tenant, &object.id, bundle, shim, object.runtime.options.as_ref())?;
        let failed = |operation| move |source| FleetError::Shim { operation, source };
        let client = ShimClient::start(&options).await.map_err(failed("start"))?;
        let mut task = new.task;
        if task.options.is_none() {
            task.options = object.runtime.options.as_ref().map(|any| (any.type_url.clone(), any.value.clone()));
        }
        let pid = match client.create_task(bundle.path(), &task).await {
            Ok(pid) => pid,
            Err(source) => {
                // Refused while it serves others of its pod; then it lives on, rightly.
                client.shutdown().await.ok();
                return Err(FleetError::Shim { operation: "create", source });
            }
        };
        Ok(Member::new(tenant.clone(), object.id.clone(), pid, bundle.clone(), shim.clone(), client))
    }

    /// A task on the shim of a sandbox.
    async fn start_in(
        &self,
        home: &SandboxMember,
        object: &ContainerObject,
        bundle: &FleetBundle,
        shim: &runtime::Shim,
        new: NewTask,
    ) -> Result<Arc<Member>> {
        bundle.join(home.bundle(), &home.id)?;
        let id: ContainerId = object.id.parse().map_err(|source| FleetError::Id { source })?;
        let client = home.shim.for_task(&id, bundle.path());
        let mut task = new.task;
        if task.options.is_none() {
            task.options = object.runtime.options.as_ref().map(|any| (any.type_url.clone(), any.value.clone()));
        }
        let created = client.create_task(bundle.path(), &task).await;
        let pid = created.map_err(|source| FleetError::Shim { operation: "create", source })?;
        Ok(Member::new(home.tenant.clone(), object.id.clone(), pid, bundle.clone(), shim.clone(), client))
    }

    /// What a failed create left: the shim's own clean-up, then the bundle.
    async fn discard(&self, tenant: &Tenant, id: &str, bundle: &FleetBundle, shim: &runtime::Shim) {
        if let Ok(options) = self.shim_options(tenant, id, bundle, shim, None)
            && let Err(error) = ShimClient::delete_dead(&options).await
        {
            tracing::debug!(container_id = id, "cleaning up a failed create: {}", berth_types::report(&error));
        }
        if let Err(error) = bundle.remove() {
            tracing::warn!(container_id = id, "{}", berth_types::report(&error));
        }
    }

    /// Forgets a stopped task and ends its shim; the status of its init.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs; `NotFound`.
    pub async fn delete(&self, tenant: &Tenant, id: &str) -> Result<(u32, berth_shim_client::ExitStatus)> {
        let member = self.member(tenant, id)?;
        let failed = |source| FleetError::Shim { operation: "delete", source };
        let status = match member.shim.delete(None).await {
            Ok(status) => status,
            Err(error) if is_gone(&error) => self.lost(&member).await,
            // Its pod was shut down, and the shim is about to end.
            Err(ShimError::Remote { class: ErrorClass::NotFound, .. }) if member.bundle.is_in_sandbox() => {
                self.lost(&member).await
            }
            Err(error) => return Err(failed(error)),
        };
        if member.set_removed() {
            // A shim that has gone by itself is as good as one that was asked to; one that serves others of its pod stays.
            if !member.bundle.is_in_sandbox() {
                member.shim.shutdown().await.ok();
            }
            self.forget(&member);
        }
        Ok((member.pid, status))
    }

    /// Returns when a process has ended; the clean-up after a dead shim knows how its init did.
    ///
    /// # Errors
    /// `NotFound` for an unknown process.
    pub async fn wait(&self, member: &Member, exec_id: Option<&ExecId>) -> Result<berth_shim_client::ExitStatus> {
        match member.shim.wait(exec_id).await {
            Err(error) if is_gone(&error) => Ok(self.lost(member).await),
            other => other.map_err(|source| FleetError::Shim { operation: "wait for", source }),
        }
    }

    fn forget(&self, member: &Member) {
        member.set_log(None);
        self.drop_restored_from(&member.tenant, &member.id);
        if let Err(error) = member.bundle.remove() {
            tracing::warn!(container_id = member.id, "{}", berth_types::report(&error));
        }
        self.members.lock().remove(&(member.tenant.clone(), member.id.clone()));
    }

    /// Follows a task in a job of its own, so that the death of its shim is noticed.
    fn watch(self: &Arc<Self>, member: &Arc<Member>) {
        let (fleet, member) = (Arc::clone(self), Arc::clone(member));
        tokio::spawn(async move {
            if let Err(error) = member.shim.wait(None).await
                && is_gone(&error)
                && !member.is_removed()
            {
                tracing::warn!(container_id = member.id, "{}", berth_types::report(&error));
                fleet.lost(&member).await;
                if member.set_removed() {
                    fleet.forget(&member);
                }
            }
        });
    }

    /// The shim has died: what is left of the task is ended by the shim's own clean-up, and its last events are told in its place.
    async fn lost(&self, member: &Member) -> berth_shim_client::ExitStatus {
        let _turn = member.cleaning.lock().await;
        if let Some(status) = member.last_status() {
            return status;
        }
        let options = self.shim_options(&member.tenant, &member.id, &member.bundle, &member.shim_binary, None);
        let cleaned = match options {
            Ok(options) => ShimClient::delete_dead(&options).await,
            Err(_) => Err(ShimError::Answer { answer: String::new() }),
        };
        let status = cleaned.unwrap_or_else(|error| {
            tracing::warn!(container_id = member.id, "cleaning up after a shim: {}", berth_types::report(&error));
            berth_shim_client::ExitStatus::killed()
        });
        member.set_last_status(status);
        for envelope in words::last_events(member, status) {
            self.record(envelope);
        }
        status
    }

    /// An event of a shim, or of ours in its place.
    pub fn record(&self, envelope: Envelope) {
        if let Ok(tenant) = envelope.namespace.parse::<Tenant>() {
            words::note(self, &tenant, &envelope);
        }
        let (event, kept) = self.events.append(docker_words(envelope));
        if let Err(error) = kept {
            tracing::warn!(sequence = event.sequence, "event is not kept: {}", berth_types::report(&error));
        }
    }
}

fn follow_log(bundle: &FleetBundle, id: &str, shim: &runtime::Shim) -> Result<Option<tokio::task::AbortHandle>> {
    if *shim == runtime::Shim::Own {
        return Ok(None);
    }
    let path = bundle.path().to_owned();
    let id = id.to_owned();
    let tell = move |line: &[u8]| {
        tracing::debug!(container_id = id, shim = %String::from_utf8_lossy(line).trim_end());
    };
    berth_shim_client::follow_log(&path, tell).map(Some).map_err(|source| FleetError::Bundle {
        operation: "follow the log in",
        path,
        source,
    })
}

/// Nobody is behind the connection any more.
const fn is_gone(error: &ShimError) -> bool {
    matches!(error, ShimError::Gone { .. } | ShimError::Connect { .. })
}
