//! Finding the fleet again after a restart: every bundle has a shim that answers, or is cleaned up.

use std::sync::Arc;

use berth_shim_client::{ShimClient, ShimError};
use berth_types::ErrorClass;
use tokio::task::JoinSet;

use super::bundle::FleetBundle;
use super::member::Member;
use super::runtime::Shim;
use super::{Fleet, Slot};
use crate::objects::Tenant;

impl Fleet {
    /// Takes back every task whose shim answers; what is left of others is ended and told.
    pub async fn recover(self: &Arc<Self>) {
        self.recover_sandboxes().await;
        let mut jobs = JoinSet::new();
        for (tenant, id, bundle) in FleetBundle::list(&self.options.dir) {
            let fleet = Arc::clone(self);
            jobs.spawn(async move { fleet.recover_one(tenant, id, bundle).await });
        }
        while jobs.join_next().await.is_some() {}
        self.drop_stale_checkpoints();
    }

    async fn recover_one(self: &Arc<Self>, tenant: Tenant, id: String, bundle: FleetBundle) {
        let shim = match bundle.shim() {
            Ok(shim) => shim,
            Err(error) => {
                // A bundle that a crash left before there was a shim.
                tracing::info!(container_id = id, "{}", berth_types::report(&error));
                if let Err(error) = bundle.remove() {
                    tracing::warn!(container_id = id, "{}", berth_types::report(&error));
                }
                return;
            }
        };
        let log = super::follow_log(&bundle, &id, &shim).ok().flatten();
        let found = match ShimClient::reconnect(bundle.path()).await {
            Ok(client) => match client.state(None).await {
                Err(ShimError::Remote { class: ErrorClass::NotFound, .. }) if !bundle.is_in_sandbox() => {
                    end_without_task(&id, &client, &bundle).await;
                    return log.into_iter().for_each(|job| job.abort());
                }
                state => state.map(|state| (client, state)),
            },
            Err(error) => Err(error),
        };
        match found {
            Ok((client, state)) => {
                let member = Member::new(tenant.clone(), id.clone(), state.pid, bundle, shim, client);
                member.set_log(log);
                self.members.lock().insert((tenant, id), Slot::Member(Arc::clone(&member)));
                self.watch(&member);
            }
            Err(error) => {
                tracing::info!(container_id = id, "no shim answers: {}", berth_types::report(&error));
                // Our own shim's clean-up is of the one task; others' may be of the whole sandbox.
                if bundle.is_in_sandbox() && shim != Shim::Own {
                    self.clean_up_in_sandbox(&tenant, &id, &bundle);
                } else {
                    self.clean_up(&tenant, &id, &bundle, &shim).await;
                }
                log.into_iter().for_each(|job| job.abort());
            }
        }
    }

    /// Its processes went with the sandbox.
    fn clean_up_in_sandbox(&self, tenant: &Tenant, id: &str, bundle: &FleetBundle) {
        let status = berth_shim_client::ExitStatus::killed();
        for envelope in super::words::last_words(tenant, id, 0, status, true) {
            self.record(envelope);
        }
        if let Err(error) = bundle.remove() {
            tracing::warn!(container_id = id, "{}", berth_types::report(&error));
        }
    }

    async fn clean_up(&self, tenant: &Tenant, id: &str, bundle: &FleetBundle, shim: &Shim) {
        if let Ok(options) = self.shim_options(tenant, id, bundle, shim, None) {
            match ShimClient::delete_dead(&options).await {
                Ok(status) => {
                    for envelope in super::words::last_words(tenant, id, 0, status, true) {
                        self.record(envelope);
                    }
                }
                Err(error) => {
                    tracing::warn!(container_id = id, "cleaning up after a shim: {}", berth_types::report(&error))
                }
            }
        }
        if let Err(error) = bundle.remove() {
            tracing::warn!(container_id = id, "{}", berth_types::report(&error));
        }
    }
}

/// The daemon was killed before the task was made, or after it was deleted: there is nothing to tell of it.
async fn end_without_task(id: &str, shim: &ShimClient, bundle: &FleetBundle) {
    if let Err(error) = shim.shutdown().await {
        tracing::warn!(container_id = id, "{}", berth_types::report(&error));
    }
    if let Err(error) = bundle.remove() {
        tracing::warn!(container_id = id, "{}", berth_types::report(&error));
    }
}
