//! A tenant's snapshots by the name of their snapshotter: the store's own, or those of an external one, under the tenant's name there.
//!
//! Locks: the one of each snapshotter in `proxied` over a change at the external snapshotter and the lease that makes it live; the collection of what nothing leads to holds it
//! too. It is not `changing`: a slow external snapshotter holds up nobody else.

use std::collections::{HashMap, HashSet};

use berth_snapshot::{Info, Kind, Mount, SnapshotError, Snapshotter as _, Usage};
use berth_snapshot_proxy::ProxySnapshotter;
use berth_types::{Classify, ErrorClass, Labels};

use super::lease::Resource;
use super::snapshot::WILL_BE;
use super::{OWN_SNAPSHOTTER, Tenant, TenantSnapshotter};
use crate::store::{CollectedSnapshot, ImageStore};
use crate::{ImageError, Result};

/// See the module.
#[derive(Debug)]
pub enum TenantSnapshots<'s> {
    Own(TenantSnapshotter<'s>),
    External(External<'s>),
}

/// Snapshots of an external snapshotter.
#[derive(Debug)]
pub struct External<'s> {
    tenant: Tenant<'s>,
    snapshots: ProxySnapshotter,
}

impl<'s> Tenant<'s> {
    /// # Errors
    /// `InvalidArgument` for a snapshotter that there is not.
    pub fn snapshots_of(&self, snapshotter: &str) -> Result<TenantSnapshots<'s>> {
        if snapshotter == OWN_SNAPSHOTTER {
            return Ok(TenantSnapshots::Own(self.snapshots()));
        }
        match self.store.proxies().iter().find(|proxy| proxy.name() == snapshotter) {
            Some(proxy) => {
                Ok(TenantSnapshots::External(External { tenant: *self, snapshots: proxy.snapshots(&self.key("")) }))
            }
            None => {
                let there = self.store.proxies().iter().map(|proxy| proxy.name());
                let there: Vec<&str> = std::iter::once(OWN_SNAPSHOTTER).chain(there).collect();
                let why =
                    format!("snapshotter not loaded: {}: there is {}", super::shown(snapshotter), there.join(", "));
                Err(ImageError::Invalid { what: "snapshotter", why })
            }
        }
    }

    /// One of the store's own that has a record. `None`: ask [`TenantSnapshots::stat`], which looks further and may wait.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn known_snapshot(&self, snapshotter: &str, key: &str) -> Result<Option<Info>> {
        if snapshotter != OWN_SNAPSHOTTER {
            return Ok(None);
        }
        match self.snapshots().local().stat(key) {
            Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
            found => Ok(found.map(Some)?),
        }
    }

    /// Whether mounts are those of an active snapshot of this tenant at an external snapshotter.
    pub(super) fn is_active_elsewhere(&self, mounts: &[Mount]) -> Result<bool> {
        for proxy in self.store.proxies() {
            let snapshots = proxy.snapshots(&self.key(""));
            let Ok(found) = snapshots.walk() else { continue };
            for info in found.into_iter().filter(|info| info.kind == Kind::Active) {
                if snapshots.mounts(&info.name).is_ok_and(|known| known == mounts) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl TenantSnapshots<'_> {
    /// # Errors
    /// As [`berth_snapshot::Snapshotter::stat`].
    pub fn stat(&self, key: &str) -> Result<Info> {
        match self {
            Self::Own(own) => own.stat(key),
            Self::External(external) => Ok(external.snapshots.stat(key)?),
        }
    }

    /// # Errors
    /// As [`TenantSnapshotter::prepare`].
    pub fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        match self {
            Self::Own(own) => own.prepare(key, parent, labels, lease),
            Self::External(external) => external.prepare(key, parent, labels, lease),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::view`].
    pub fn view(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        match self {
            Self::Own(own) => own.view(key, parent, labels, lease),
            Self::External(external) => external.change(lease, key, |to| to.view(key, parent, labels)),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::mounts`].
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        match self {
            Self::Own(own) => Ok(own.local().mounts(key)?),
            Self::External(external) => Ok(external.snapshots.mounts(key)?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::commit`].
    pub fn commit(&self, name: &str, key: &str, labels: &Labels, lease: Option<&str>) -> Result<()> {
        match self {
            Self::Own(own) => own.commit(name, key, labels, lease),
            Self::External(external) => external.change(lease, name, |to| to.commit(name, key, labels)),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::remove`].
    pub fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Own(own) => own.remove(key),
            Self::External(external) => Ok(external.snapshots.remove(key)?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::update`].
    pub fn update(&self, key: &str, labels: &Labels, fields: &[String]) -> Result<Info> {
        match self {
            Self::Own(own) => Ok(own.local().update(key, labels, fields)?),
            Self::External(external) => Ok(external.snapshots.update(key, labels, fields)?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::walk`].
    pub fn walk(&self) -> Result<Vec<Info>> {
        match self {
            Self::Own(own) => Ok(own.local().walk()?),
            Self::External(external) => Ok(external.snapshots.walk()?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::usage`].
    pub fn usage(&self, key: &str) -> Result<Usage> {
        match self {
            Self::Own(own) => own.usage(key),
            Self::External(external) => Ok(external.snapshots.usage(key)?),
        }
    }

    /// # Errors
    /// As [`berth_snapshot::Snapshotter::cleanup`].
    pub fn cleanup(&self) -> Result<()> {
        match self {
            Self::Own(own) => Ok(own.local().cleanup()?),
            Self::External(external) => Ok(external.snapshots.cleanup()?),
        }
    }
}

impl External<'_> {
    /// A lazy snapshotter may have the layer without unpacking: it then commits it by itself and says `AlreadyExists` (containerd's "remote
    /// snapshots"), which goes to the client as it is; the lease is for what is there then.
    fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels, lease: Option<&str>) -> Result<Vec<Mount>> {
        let _changing = self.tenant.store.lock_proxied(self.snapshots.name());
        let made = self.change_locked(lease, key, |to| to.prepare(key, parent, labels));
        if let (Err(error), Some(name)) = (&made, labels.get(WILL_BE))
            && error.class() == ErrorClass::AlreadyExists
            && self.snapshots.stat(name).is_ok()
        {
            self.lease(lease, name)?;
        }
        made
    }

    fn change<T>(
        &self,
        lease: Option<&str>,
        key: &str,
        change: impl FnOnce(&ProxySnapshotter) -> std::result::Result<T, SnapshotError>,
    ) -> Result<T> {
        let _changing = self.tenant.store.lock_proxied(self.snapshots.name());
        self.change_locked(lease, key, change)
    }

    /// The caller holds the snapshotter's lock, so that nothing is collected before it is leased.
    fn change_locked<T>(
        &self,
        lease: Option<&str>,
        key: &str,
        change: impl FnOnce(&ProxySnapshotter) -> std::result::Result<T, SnapshotError>,
    ) -> Result<T> {
        self.tenant.ensure_known()?;
        let made = change(&self.snapshots)?;
        self.lease(lease, key)?;
        Ok(made)
    }

    fn lease(&self, lease: Option<&str>, key: &str) -> Result<()> {
        let Some(lease) = lease else { return Ok(()) };
        let resource = Resource { kind: format!("snapshots/{}", self.snapshots.name()), id: key.to_owned() };
        let _changing = self.tenant.store.lock();
        self.tenant.write(vec![self.tenant.with_resource(lease, resource)?])
    }
}

impl ImageStore {
    /// Removes what tenants have at external snapshotters and nothing leads to. Returns how many snapshots.
    ///
    /// # Errors
    /// When records cannot be read; what an external snapshotter refuses stays until the next time.
    pub fn collect_proxied(&self) -> Result<usize> {
        let mut removed = 0;
        if self.proxies().is_empty() {
            return Ok(0);
        }
        let tenants: Vec<String> = self.namespaces()?.into_iter().map(|tenant| format!("{}/", tenant.name)).collect();
        for proxy in self.proxies() {
            let _proxied = self.lock_proxied(proxy.name());
            let snapshots = proxy.snapshots("");
            let all = match snapshots.walk() {
                Ok(all) => all,
                Err(error) => {
                    tracing::warn!(snapshotter = proxy.name(), "not collected: {}", berth_types::report(&error));
                    continue;
                }
            };
            let needed = {
                let _changing = self.lock();
                self.collect_tenants(false)?.foreign
            };
            let roots = needed.into_iter().filter(|(name, _)| name == proxy.name()).map(|(_, key)| key);
            let dead = dead(&all, roots, &tenants);
            let is_any = !dead.is_empty();
            for key in dead {
                match snapshots.remove(&key) {
                    Ok(()) => {
                        removed += 1;
                        if let Some((tenant, key)) = key.split_once('/') {
                            let (tenant, key, snapshotter) =
                                (tenant.to_owned(), key.to_owned(), proxy.name().to_owned());
                            self.collected(CollectedSnapshot { tenant, snapshotter, key });
                        }
                    }
                    Err(error) => tracing::debug!(key, "not collected: {}", berth_types::report(&error)),
                }
            }
            // One that removes asynchronously (stargz) keeps directories and mounts until it is told.
            if is_any && let Err(error) = snapshots.cleanup() {
                tracing::warn!(snapshotter = proxy.name(), "not cleaned up: {}", berth_types::report(&error));
            }
        }
        Ok(removed)
    }
}

/// Snapshots of the tenants that no root is or is based on, each before what it is based on.
fn dead(all: &[Info], roots: impl Iterator<Item = String>, tenants: &[String]) -> Vec<String> {
    let parents: HashMap<&str, Option<&str>> =
        all.iter().map(|info| (info.name.as_str(), info.parent.as_deref())).collect();
    let is_tenants = |key: &str| tenants.iter().any(|tenant| key.starts_with(tenant));
    let mut live: HashSet<String> = HashSet::new();
    // Labels are kept by the snapshotter itself.
    let labelled = all.iter().filter(|info| info.labels.contains_key(super::gc::ROOT)).map(|info| info.name.clone());
    for root in roots.chain(labelled) {
        let mut next = Some(root);
        while let Some(key) = next.filter(|key| live.insert(key.clone())) {
            next = parents.get(key.as_str()).copied().flatten().map(str::to_owned);
        }
    }
    let depth = |key: &str| {
        std::iter::successors(Some(key), |at| parents.get(at).copied().flatten()).take(all.len() + 1).count()
    };
    let mut dead: Vec<(usize, String)> = all
        .iter()
        .filter(|info| is_tenants(&info.name) && !live.contains(&info.name))
        .map(|info| (depth(&info.name), info.name.clone()))
        .collect();
    dead.sort_by(|one, other| other.cmp(one));
    dead.into_iter().map(|(_, key)| key).collect()
}
