//! What concerns the whole engine: facts, disk use, networks, prune, and giving up what a private instance holds.

use std::collections::BTreeMap;
use std::path::Path;

use berth_types::Timestamp;

use crate::api::{CgroupDriver, Filters, InfoView, NetworkSummary, PruneOutcome, Status};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::filters;
use crate::inspect::endpoint_id;

impl Engine {
    /// # Errors
    /// When the image store cannot be read.
    pub async fn info(&self) -> Result<InfoView> {
        self.blocking(|engine| engine.info_now()).await
    }

    /// Of the host's kernel, as `uname -r` has it.
    #[must_use]
    pub fn kernel_version(&self) -> &str {
        &self.inner.facts.kernel_release
    }

    fn info_now(&self) -> Result<InfoView> {
        let facts = &self.inner.facts;
        let mut info = InfoView {
            id: self.inner.id.clone(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            images: self.inner.images.list()?.len(),
            kernel_version: facts.kernel_release.clone(),
            operating_system: operating_system(),
            architecture: std::env::consts::ARCH.to_owned(),
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            cgroup_driver: facts.cgroup_driver.name().to_owned(),
            cgroup_version: facts.cgroup_version.to_string(),
            storage_driver: self.storage_driver(),
            storage_status: vec![("Data Root".to_owned(), self.inner.paths.data.display().to_string())],
            default_runtime: self.inner.options.runtimes.default_name().to_owned(),
            runtimes: self.inner.options.runtimes.list(&self.inner.options.shim_search),
            security_options: security_options(facts),
            data_root: self.inner.paths.data.clone(),
            features: features(facts),
            ..InfoView::default()
        };
        for proxy in self.inner.images.proxies() {
            let address = proxy.settings().address.display();
            let state = match proxy.probe() {
                Ok(()) => format!("{address}, answers"),
                Err(error) => {
                    info.warnings.push(berth_types::report(&error));
                    format!("{address}, does not answer")
                }
            };
            info.storage_status.push((format!("External snapshotter {}", proxy.name()), state));
        }
        for container in self.inner.registry.all() {
            info.containers += 1;
            match container.status() {
                Status::Running | Status::Restarting => info.running += 1,
                Status::Paused => info.paused += 1,
                _ => info.stopped += 1,
            }
        }
        if let Err(error) = &self.inner.network {
            info.warnings.push(format!("no bridge network: {error}"));
        }
        if facts.cgroup_version == 1 {
            info.warnings.push("cgroup v1: I/O rate limits hold for direct I/O only".to_owned());
        }
        Ok(info)
    }

    /// The default bridge, and the two that are always there.
    ///
    /// # Errors
    /// None today.
    pub async fn networks(&self) -> Result<Vec<NetworkSummary>> {
        let plain = |name: &str, driver: &str| NetworkSummary {
            id: fixed_id(name),
            name: name.to_owned(),
            driver: driver.to_owned(),
            ..NetworkSummary::default()
        };
        let mut list = Vec::new();
        if let Ok(network) = &self.inner.network {
            let subnet = &self.inner.options.bridge_subnet;
            list.push(NetworkSummary {
                id: network.id().to_owned(),
                subnets: std::iter::once((subnet.clone(), gateway(subnet)))
                    .chain(network.subnet6().map(|subnet| (subnet.to_string(), subnet.gateway().to_string())))
                    .collect(),
                addresses: Some(addresses(network)),
                containers: self.network_containers(),
                ..plain("bridge", "bridge")
            });
        }
        list.push(plain("host", "host"));
        list.push(plain("none", "null"));
        Ok(list)
    }

    fn network_containers(&self) -> BTreeMap<String, (String, String, String, String, String)> {
        let mut containers = BTreeMap::new();
        for container in self.inner.registry.all() {
            let record = container.record();
            let Some(endpoint) = record.endpoint.as_ref().filter(|_| record.state.is_running()) else { continue };
            let ipv6 = endpoint.ipv6.map(|(address, prefix, _)| format!("{address}/{prefix}")).unwrap_or_default();
            let ipv4 = format!("{}/{}", endpoint.ipv4, endpoint.ipv4_prefix);
            let entry = (record.name.clone(), endpoint_id(&record), endpoint.mac.clone(), ipv4, ipv6);
            containers.insert(record.id.to_string(), entry);
        }
        containers
    }

    /// Removes containers that do not run.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<PruneOutcome> {
        filters::check(filters, &filters::PRUNE_KEYS)?;
        let until = filters.get("until").into_iter().flatten().next();
        let until = until.map(|text| Timestamp::parse_relative(text, Timestamp::now())).transpose()?;
        let mut outcome = PruneOutcome::default();
        for container in self.inner.registry.all() {
            let record = container.record();
            let is_stopped = matches!(record.state.status, Status::Created | Status::Exited | Status::Dead);
            let is_due = is_stopped
                && until.is_none_or(|until| record.created < until)
                && filters::labels_fit(filters, &record.config.labels);
            if !is_due {
                continue;
            }
            let target = std::sync::Arc::clone(&container);
            let size =
                self.blocking(move |engine| Ok(engine.writable_size(&target)?.usage.size_bytes)).await.unwrap_or(0);
            match self.remove(record.id.as_str(), false, false).await {
                Ok(()) => {
                    outcome.deleted.push(record.id.to_string());
                    outcome.reclaimed_bytes = outcome.reclaimed_bytes.saturating_add(size);
                }
                // Started meanwhile, or removed by somebody else: not ours to prune any more.
                Err(error) => tracing::debug!(container_id = %record.id, "not pruned: {error}"),
            }
        }
        self.emit("container", "prune", "", [("reclaimed".to_owned(), outcome.reclaimed_bytes.to_string())].into());
        Ok(outcome)
    }

    /// Gives up what the engine holds in the kernel for itself (bridge, nftables table, empty parent cgroup), for private
    /// instances that end. Refused while containers run.
    ///
    /// # Errors
    /// `FailedPrecondition` while containers run.
    pub async fn release(&self) -> Result<()> {
        for container in self.inner.registry.all() {
            if container.lock().record.state.is_running() {
                return Err(EngineError::conflict(format!("container {} still runs", container.name())));
            }
            // An exit that was just recorded is cleaned up first.
            self.await_teardown(&container).await?;
        }
        self.blocking(|engine| {
            if let Ok(network) = &engine.inner.network {
                network.destroy()?;
            }
            let is_ours = engine.inner.options.cgroup_driver == CgroupDriver::Cgroupfs;
            if let Some(layout) = engine.inner.facts.cgroups.as_ref().filter(|_| is_ours) {
                let parent = format!("/{}", engine.inner.options.cgroup_parent.trim_matches('/'));
                let group = berth_cgroup::Cgroup::open(layout, &parent);
                let deleted = group.and_then(|group| group.delete(std::time::Duration::from_secs(2)));
                match deleted {
                    // No container ever needed it.
                    Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::NotFound => {}
                    other => other?,
                }
            }
            Ok(())
        })
        .await
    }
}

/// In use by containers, and free; sandboxes that are kept ready count as free, they give way.
fn addresses(network: &berth_network::Network) -> (u64, u64) {
    let in_use = network.addresses_in_use().saturating_sub(network.prepared());
    let in_use = u64::try_from(in_use).unwrap_or(u64::MAX);
    let all = (1_u64 << (32 - u32::from(network.subnet().prefix()).min(32))).saturating_sub(3);
    (in_use, all.saturating_sub(in_use))
}

fn fixed_id(name: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(format!("berth network {name}")))
}

/// The first address of the network.
fn gateway(subnet: &str) -> String {
    let parse = || {
        let (address, _) = subnet.split_once('/')?;
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some(std::net::Ipv4Addr::from(u32::from(address).checked_add(1)?).to_string())
    };
    parse().unwrap_or_default()
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn security_options(facts: &crate::host::HostFacts) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if facts.cgroup_version == 2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

/// What this kernel has of what we use; by version where the kernel offers no other way to ask.
fn features(facts: &crate::host::HostFacts) -> BTreeMap<String, String> {
    let kernel = facts.kernel();
    let yes = |is_there: bool| if is_there { "yes" } else { "no" }.to_owned();
    let namespace = |name: &str| Path::new("/proc/self/ns").join(name).exists();
    let mut features: BTreeMap<String, String> = BTreeMap::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        features.insert(format!("namespace.{name}"), yes(namespace(name)));
    }
    let by_version = [
        ("clone3", (5, 3)),
        ("pidfd", (5, 3)),
        ("openat2", (5, 6)),
        ("clone-into-cgroup", (5, 7)),
        ("setns-by-pidfd", (5, 8)),
        ("volatile-overlay", (5, 10)),
        ("mount-setattr", (5, 12)),
        ("idmapped-mounts", (5, 12)),
        ("cgroup-kill", (5, 14)),
        ("overlay-layer-by-layer", (6, 7)),
    ];
    for (name, since) in by_version {
        features.insert(name.to_owned(), yes(kernel >= since));
    }
    features.insert("seccomp".to_owned(), yes(Path::new("/proc/sys/kernel/seccomp").exists()));
    features.insert("apparmor".to_owned(), yes(facts.has_apparmor));
    features.insert("selinux".to_owned(), yes(facts.has_selinux));
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways() {
        assert_eq!(gateway("172.18.0.0/16"), "172.18.0.1");
        assert_eq!(gateway("nonsense"), "");
    }

    /// S-010: all kinds of namespace are listed.
    #[test]
    fn s010_features_list_the_namespaces() {
        let features = features(&crate::host::tests::facts());
        assert_eq!(features.keys().filter(|k| k.starts_with("namespace.")).count(), 8);
        assert_eq!(features["clone3"], "yes");
    }
}
