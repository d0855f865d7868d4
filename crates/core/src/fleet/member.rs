//! One task of the fleet.

use std::path::Path;
use std::sync::Arc;

use berth_shim_client::{ExitStatus, ShimClient};
use parking_lot::Mutex;

use super::bundle::FleetBundle;
use super::runtime::Shim;
use crate::objects::Tenant;

#[derive(Debug)]
pub struct Member {
    pub tenant: Tenant,
    pub id: String,
    /// Host pid of init.
    pub pid: u32,
    pub shim: ShimClient,
    pub(super) bundle: FleetBundle,
    pub(super) shim_binary: Shim,
    /// Held while the clean-up after a dead shim runs: it runs once.
    pub(super) cleaning: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Somebody has deleted it or is about to.
    is_removed: bool,
    has_exit_been_told: bool,
    /// What the clean-up after a dead shim found.
    last_status: Option<ExitStatus>,
    log: Option<tokio::task::AbortHandle>,
}

impl Member {
    pub(super) fn new(
        tenant: Tenant,
        id: String,
        pid: u32,
        bundle: FleetBundle,
        shim_binary: Shim,
        shim: ShimClient,
    ) -> Arc<Self> {
        let cleaning = tokio::sync::Mutex::new(());
        Arc::new(Self { tenant, id, pid, shim, bundle, shim_binary, cleaning, inner: Mutex::default() })
    }

    pub fn bundle(&self) -> &Path {
        self.bundle.path()
    }

    pub fn is_on_own_shim(&self) -> bool {
        self.shim_binary == Shim::Own
    }

    /// The shim's binary, or `berth` for our own.
    pub fn shim_name(&self) -> String {
        self.shim_binary.text()
    }

    /// True for the first who asks.
    pub(super) fn set_removed(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().is_removed, true)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.inner.lock().is_removed
    }

    pub(super) fn note_exit_told(&self) {
        self.inner.lock().has_exit_been_told = true;
    }

    pub(super) fn has_exit_been_told(&self) -> bool {
        self.inner.lock().has_exit_been_told
    }

    /// Ends the job that followed its log before.
    pub(super) fn set_log(&self, log: Option<tokio::task::AbortHandle>) {
        let before = std::mem::replace(&mut self.inner.lock().log, log);
        before.into_iter().for_each(|job| job.abort());
    }

    pub(super) fn last_status(&self) -> Option<ExitStatus> {
        self.inner.lock().last_status
    }

    pub(super) fn set_last_status(&self, status: ExitStatus) {
        self.inner.lock().last_status = Some(status);
    }
}
