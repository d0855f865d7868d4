//! Sandboxes (pods) that shims run: containerd's controller `shim`. The record is in [`crate::objects`]; here is the running side.
//!
//! ```text
//! <state>/sandboxes/<tenant>/<id>/  the bundle: config.json (the sandbox's document), bootstrap.json, shim-binary-path
//!
//! create: reserve the id -> bundle -> shim start -> CreateSandbox       shutdown: ShutdownSandbox -> bundle
//! ```
//! A container that names a sandbox gets its task from the sandbox's shim; such a task never ends the shim. The end of a sandbox is told once,
//! whoever waits for it. Lock order: `sandboxes` is a leaf, never held across an await.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::protobuf::Message as _;
use berth_proto::sandbox::event::SandboxExit;
use berth_proto::{instant, pack};
use berth_shim_client::{ExitStatus, NewSandbox, ShimClient};
use berth_types::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bundle::FleetBundle;
use super::{Fleet, FleetError, Result, is_gone, runtime};
use crate::events::Envelope;
use crate::objects::{AnyValue, Sandbox, Tenant};

/// After a wait that failed though the shim lives.
const WAIT_AGAIN: Duration = Duration::from_secs(5);
/// As shims say of a sandbox that has ended (containerd's word).
const NOT_READY: &str = "SANDBOX_NOTREADY";
/// containerd's code of an end that nobody saw.
const UNSEEN: u32 = 255;
const FOLDER: &str = "sandboxes";

/// A running sandbox.
#[derive(Debug)]
pub struct SandboxMember {
    pub tenant: Tenant,
    pub id: String,
    pub shim: ShimClient,
    bundle: FleetBundle,
    shim_binary: runtime::Shim,
    /// Set once, when it has ended.
    ended: watch::Sender<Option<ExitStatus>>,
}

impl SandboxMember {
    /// Returns when it has ended.
    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as we do.
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.unwrap_or_else(ExitStatus::killed)
    }

    pub(super) fn bundle(&self) -> &FleetBundle {
        &self.bundle
    }

    pub(super) fn shim_binary(&self) -> &runtime::Shim {
        &self.shim_binary
    }
}

impl Fleet {
    fn sandbox_dir(&self) -> PathBuf {
        self.options.dir.with_file_name(FOLDER)
    }

    /// # Errors
    /// `NotFound`.
    pub fn sandbox(&self, tenant: &Tenant, id: &str) -> Result<Arc<SandboxMember>> {
        let found = self.sandboxes.lock().get(&(tenant.clone(), id.to_owned())).cloned();
        found.flatten().ok_or_else(|| FleetError::NoSandbox { id: id.to_owned() })
    }

    /// Starts the shim of a sandbox and lets it make the sandbox.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for a runtime without a shim; `Unimplemented` for a shim without the service; the shim's own.
    pub async fn create_sandbox(self: &Arc<Self>, tenant: &Tenant, record: &Sandbox, new: NewSandbox) -> Result<()> {
        let key = (tenant.clone(), record.id.clone());
        {
            let mut sandboxes = self.sandboxes.lock();
            if sandboxes.contains_key(&key) {
                return Err(FleetError::SandboxExists { id: record.id.clone() });
            }
            sandboxes.insert(key.clone(), None);
        }
        let made = self.make_sandbox(tenant, record, new).await;
        let mut sandboxes = self.sandboxes.lock();
        match made {
            Ok(member) => {
                sandboxes.insert(key, Some(Arc::clone(&member)));
                drop(sandboxes);
                self.watch_sandbox(member);
                Ok(())
            }
            Err(error) => {
                sandboxes.remove(&key);
                Err(error)
            }
        }
    }

    async fn make_sandbox(&self, tenant: &Tenant, record: &Sandbox, new: NewSandbox) -> Result<Arc<SandboxMember>> {
        let shim = runtime::find(&record.runtime.name, &self.options.search)?;
        let bundle = FleetBundle::create(&self.sandbox_dir(), tenant, &record.id, record.spec.as_ref(), &shim)?;
        let options = self.shim_options(tenant, &record.id, &bundle, &shim, record.runtime.options.as_ref())?;
        let failed = |operation| move |source| FleetError::SandboxShim { operation, source };
        let client = match ShimClient::start(&options).await {
            Ok(client) => client,
            Err(source) => {
                self.discard(tenant, &record.id, &bundle, &shim).await;
                return Err(failed("start")(source));
            }
        };
        if let Err(source) = client.create_sandbox(bundle.path(), new).await {
            client.shutdown_sandbox().await.ok();
            // One without the service is a shim all the same.
            client.shutdown().await.ok();
            self.discard(tenant, &record.id, &bundle, &shim).await;
            return Err(failed("create")(source));
        }
        Ok(sandbox_member(tenant.clone(), record.id.clone(), bundle, shim, client))
    }

    /// Lets it run; one that cannot is taken down.
    ///
    /// # Errors
    /// `NotFound`; the shim's.
    pub async fn start_sandbox(&self, tenant: &Tenant, id: &str) -> Result<(u32, Timestamp)> {
        let member = self.sandbox(tenant, id)?;
        match member.shim.start_sandbox().await {
            Ok(started) => Ok(started),
            Err(source) => {
                member.shim.shutdown_sandbox().await.ok();
                self.forget_sandbox(&member).await;
                Err(FleetError::SandboxShim { operation: "start", source })
            }
        }
    }

    /// Ends the sandbox's shim and forgets it.
    ///
    /// # Errors
    /// `NotFound`; the shim's.
    pub async fn shutdown_sandbox(&self, tenant: &Tenant, id: &str) -> Result<()> {
        let member = self.sandbox(tenant, id)?;
        match member.shim.shutdown_sandbox().await {
            Err(source) if !is_gone(&source) => Err(FleetError::SandboxShim { operation: "shut down", source }),
            _ => {
                self.forget_sandbox(&member).await;
                Ok(())
            }
        }
    }

    async fn forget_sandbox(&self, member: &SandboxMember) {
        self.tell_end(member, None);
        self.sandboxes.lock().remove(&(member.tenant.clone(), member.id.clone()));
        self.discard(&member.tenant, &member.id, &member.bundle, &member.shim_binary).await;
    }

    /// Follows it in a job of its own, so that its end is told whoever waits.
    fn watch_sandbox(self: &Arc<Self>, member: Arc<SandboxMember>) {
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let error = match member.shim.wait_sandbox().await {
                    Ok(status) => return fleet.tell_end(&member, Some(status)),
                    Err(error) => error,
                };
                tracing::warn!(sandbox_id = member.id, "{}", berth_types::report(&error));
                if is_gone(&error) {
                    return fleet.tell_end(&member, None);
                }
                // An error of one wait is no end: what the shim says of the sandbox counts.
                match member.shim.sandbox_status(false).await {
                    Ok(found) if found.state == NOT_READY => {
                        return fleet.tell_end(&member, Some(ExitStatus { code: UNSEEN, exited_at: found.exited_at }));
                    }
                    Err(error) if is_gone(&error) => return fleet.tell_end(&member, None),
                    _ if member.ended.borrow().is_some() => return,
                    _ => tokio::time::sleep(WAIT_AGAIN).await,
                }
            }
        });
    }

    /// The first who knows tells.
    fn tell_end(&self, member: &SandboxMember, status: Option<ExitStatus>) {
        let status = status.unwrap_or_else(ExitStatus::killed);
        let is_first = member.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            if is_first {
                *ended = Some(status);
            }
            is_first
        });
        if is_first {
            self.record(exit_envelope(&member.tenant, &member.id, status));
        }
    }

    /// Finds sandboxes again, all at once: one whose shim hangs holds up no other.
    pub(super) async fn recover_sandboxes(self: &Arc<Self>) {
        let mut jobs = JoinSet::new();
        for (tenant, id, bundle) in FleetBundle::list(&self.sandbox_dir()) {
            let fleet = Arc::clone(self);
            jobs.spawn(async move { fleet.recover_sandbox(tenant, id, bundle).await });
        }
        while jobs.join_next().await.is_some() {}
    }

    /// What is left of one whose shim does not answer is cleaned up and told.
    async fn recover_sandbox(self: &Arc<Self>, tenant: Tenant, id: String, bundle: FleetBundle) {
        let Ok(shim) = bundle.shim() else {
            // A crash left it before there was a shim.
            return bundle.remove().unwrap_or_else(|error| tracing::warn!("{}", berth_types::report(&error)));
        };
        let found = match ShimClient::reconnect(bundle.path()).await {
            Ok(client) => client.sandbox_status(false).await.map(|_| client),
            Err(error) => Err(error),
        };
        match found {
            Ok(client) => {
                let member = sandbox_member(tenant.clone(), id.clone(), bundle, shim, client);
                self.sandboxes.lock().insert((tenant, id), Some(Arc::clone(&member)));
                self.watch_sandbox(member);
            }
            Err(error) => {
                tracing::info!(sandbox_id = id, "no shim answers: {}", berth_types::report(&error));
                self.record(exit_envelope(&tenant, &id, ExitStatus::killed()));
                self.discard(&tenant, &id, &bundle, &shim).await;
            }
        }
    }
}

fn sandbox_member(
    tenant: Tenant,
    id: String,
    bundle: FleetBundle,
    shim_binary: runtime::Shim,
    shim: ShimClient,
) -> Arc<SandboxMember> {
    Arc::new(SandboxMember { tenant, id, shim, bundle, shim_binary, ended: watch::Sender::new(None) })
}

fn exit_envelope(tenant: &Tenant, id: &str, status: ExitStatus) -> Envelope {
    let event = SandboxExit {
        sandbox_id: id.to_owned(),
        exit_status: status.code,
        exited_at: instant::into_wire(status.exited_at),
        ..Default::default()
    };
    debug_assert!(event.is_initialized());
    let packed = pack("containerd.events", &event);
    Envelope {
        namespace: tenant.to_string(),
        topic: "/sandboxes/exit".to_owned(),
        event: AnyValue { type_url: packed.type_url, value: packed.value },
    }
}
