//! `inspect` and `ps`: views made of the record, the run, and the kernel.

use std::path::Path;

use berth_cgroup::Membership;

use crate::api::{ContainerView, KernelView, ListOptions, NetworkView, Status};
use crate::container::Container;
use crate::disk_usage::in_parallel;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::filters::ContainerFilter;
use crate::record::Record;

/// The eight kinds of kernel namespace, by their names in `/proc/<pid>/ns`.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Engine {
    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, container_ref: &str, size: bool) -> Result<ContainerView> {
        if let Some(foreign) = self.foreign(container_ref)
            && let Some(mut view) = self.foreign_view(&foreign).await
        {
            view.kernel = (view.pid != 0).then(|| kernel_view(view.pid));
            return Ok(view);
        }
        let container = self.find(container_ref)?;
        self.blocking(move |engine| {
            let mut view = engine.view(&container);
            engine.add_layers(&container, &mut view);
            if view.pid != 0 {
                view.kernel = Some(kernel_view(view.pid));
            }
            if size {
                engine.add_sizes(&container, &mut view)?;
            }
            Ok(view)
        })
        .await
    }

    /// Newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters, `NotFound` when `before` or `since` name no container.
    pub async fn list(&self, options: &ListOptions) -> Result<Vec<Box<ContainerView>>> {
        let mut filter = ContainerFilter::parse(&options.filters)?;
        let created = |name: &String| Ok::<_, EngineError>(self.find(name)?.lock().record.created);
        filter.before = filter.values("before").iter().map(created).collect::<Result<Vec<_>>>()?.into_iter().min();
        filter.since = filter.values("since").iter().map(created).collect::<Result<Vec<_>>>()?.into_iter().max();
        let ancestors = filter.values("ancestor").to_vec();
        if !ancestors.is_empty() {
            filter.ancestors = Some(self.blocking(move |engine| Ok(engine.ancestors(&ancestors))).await?);
        }
        let takes_stopped = options.all || options.limit.is_some() || filter.wants_stopped();
        let has_state =
            |status| takes_stopped || matches!(status, Status::Running | Status::Paused | Status::Restarting);
        let is_wanted = |view: &ContainerView| has_state(view.status) && filter.fits(view);
        let mut containers = self.inner.registry.all();
        containers.retain(|container| has_state(container.status()));
        // A view is large: they are boxed to be sorted.
        let own = containers.iter().map(|container| Box::new(self.view(container)));
        let mut views: Vec<Box<ContainerView>> = own.filter(|view| is_wanted(view)).collect();
        views.extend(self.foreign_views().await.into_iter().filter(is_wanted).map(Box::new));
        views.sort_unstable_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        views.truncate(options.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX));
        if !options.size {
            return Ok(views);
        }
        self.heavy(move |engine| {
            let sizes = in_parallel(&views, |view| {
                // Removed meanwhile: the list shows what was there when it was asked.
                let container = engine.inner.registry.find(view.id.as_str()).ok();
                container.map(|container| engine.writable_size(&container)).transpose()
            });
            for (view, size) in views.iter_mut().zip(sizes) {
                if let Some(size) = size? {
                    engine.add_size(view, size.usage.size_bytes);
                }
            }
            Ok(views)
        })
        .await
    }

    /// Image ids that names stand for; a name without an image stays a name, and fits containers whose image has gone.
    fn ancestors(&self, names: &[String]) -> Vec<String> {
        let ids = names.iter().filter_map(|name| self.inner.images.get(name).ok()).map(|image| image.id.to_string());
        ids.chain(names.iter().cloned()).collect()
    }

    pub(crate) fn view(&self, container: &Container) -> ContainerView {
        let record = container.record();
        let bundle = self.inner.tasks.bundle(&record.id);
        let argv = record.argv();
        let mut args = argv.into_iter();
        let state = &record.state;
        ContainerView {
            path: args.next().unwrap_or_default(),
            args: args.collect(),
            network: self.network_view(&record),
            status: state.status,
            pid: state.pid,
            exit_code: state.exit_code,
            error: state.error.clone(),
            oom_killed: state.oom_killed,
            started_at: state.started_at,
            finished_at: state.finished_at,
            restart_count: state.restart_count,
            log_path: if record.host.log_driver == "none" {
                Path::new("").into()
            } else {
                self.inner.paths.log(&record.id)
            },
            resolv_conf_path: bundle.file("resolv.conf"),
            hostname_path: bundle.file("hostname"),
            hosts_path: bundle.file("hosts"),
            driver: self.storage_driver(),
            upper_dir: Path::new("").into(),
            work_dir: Path::new("").into(),
            lower_dirs: Vec::new(),
            exec_ids: self.inner.execs.of_container(&record.id),
            kernel: None,
            size_rw: None,
            size_rootfs: None,
            name: record.name,
            created: record.created,
            image_id: record.image_id,
            image_name: record.image_name,
            mounts: record.mounts,
            config: record.config,
            host_config: record.host,
            id: record.id,
        }
    }

    fn network_view(&self, record: &Record) -> NetworkView {
        let asked = record.host.network_mode.as_str();
        let mode = if record.config.network_disabled { "none" } else { asked };
        let mode = if matches!(mode, "" | "default") { "bridge" } else { mode };
        let mut view = NetworkView { mode: mode.to_owned(), ..NetworkView::default() };
        if mode == "bridge" {
            view.network_id = self.inner.network.as_ref().map(|network| network.id().to_owned()).unwrap_or_default();
        }
        for port in &record.config.exposed_ports {
            view.ports.entry(with_protocol(port)).or_default();
        }
        let Some(endpoint) = &record.endpoint else { return view };
        view.endpoint_id = endpoint_id(record);
        view.mac.clone_from(&endpoint.mac);
        view.ipv4 = endpoint.ipv4.to_string();
        view.ipv4_prefix = endpoint.ipv4_prefix;
        view.gateway = endpoint.gateway_v4.to_string();
        if let Some((address, prefix, gateway)) = endpoint.ipv6 {
            view.ipv6 = address.to_string();
            view.ipv6_prefix = prefix;
            view.gateway_v6 = gateway.to_string();
        }
        for port in &endpoint.ports {
            let protocol = if port.protocol == berth_network::Protocol::Udp { "udp" } else { "tcp" };
            let list = view.ports.entry(format!("{}/{protocol}", port.container_port)).or_default();
            match port.host_ip {
                Some(address) => list.push((address.to_string(), port.host_port)),
                None => {
                    list.push(("0.0.0.0".to_owned(), port.host_port));
                    if endpoint.ipv6.is_some() {
                        list.push(("::".to_owned(), port.host_port));
                    }
                }
            }
        }
        if record.state.pid != 0 {
            view.sandbox_key = format!("/proc/{}/ns/net", record.state.pid);
        }
        view
    }

    fn add_layers(&self, container: &Container, view: &mut ContainerView) {
        // A container whose image record is damaged is still shown, without its layers.
        let Ok(rootfs) = self.rootfs_of(container) else { return };
        view.upper_dir = rootfs.upper.unwrap_or_default();
        view.work_dir = rootfs.work.unwrap_or_default();
        view.lower_dirs = rootfs.lowers;
    }

    fn add_sizes(&self, container: &Container, view: &mut ContainerView) -> Result<()> {
        let writable = self.writable_size(container)?.usage.size_bytes;
        self.add_size(view, writable);
        Ok(())
    }

    /// `writable_bytes`: what it wrote, known already.
    fn add_size(&self, view: &mut ContainerView, writable_bytes: u64) {
        let image = self.inner.images.get_by_id(&view.image_id).map(|image| image.size_bytes).unwrap_or(0);
        view.size_rw = Some(writable_bytes);
        view.size_rootfs = Some(image.saturating_add(writable_bytes));
    }
}

/// Stable for one life of the container; nothing else is derived from it.
pub(crate) fn endpoint_id(record: &Record) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(format!("endpoint {} {:?}", record.id, record.state.started_at)))
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// S-005: what the kernel says. A process that ends while we read shows what was still there.
fn kernel_view(pid: u32) -> KernelView {
    let mut view = KernelView::default();
    for name in NAMESPACES {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap_or_default();
        let text = link.to_string_lossy();
        let inode = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).and_then(|n| n.parse().ok());
        if let Some(inode) = inode {
            view.namespaces.insert(name.to_owned(), inode);
        }
    }
    view.cgroups = Membership::of(Some(pid)).unwrap_or_default().groups;
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-005
    #[test]
    fn s005_kernel_view_of_this_process() {
        let view = kernel_view(std::process::id());
        assert!(["mnt", "pid", "net", "user", "uts", "ipc", "cgroup"].iter().all(|n| view.namespaces.contains_key(*n)));
        assert!(!view.cgroups.is_empty());
        let groups = Membership::parse("12:cpu,cpuacct:/a\n0::/b:c\n").groups;
        assert_eq!((groups["cpuacct"].as_str(), groups[""].as_str()), ("/a", "/b:c"));
    }
}
