//! `Introspection`: what this daemon is made of, in containerd's words.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use berth_containerd_api::containerd::services::introspection::v1::introspection_server::Introspection;
use berth_containerd_api::containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use berth_containerd_api::containerd::types::Platform;
use berth_core::filter::{Fields, text_field};
use tonic::{Request, Response, Status};

use super::{Answer, filters};
use crate::Face;

struct PluginFields<'a>(&'a Plugin);

impl Fields for PluginFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["type"] => text_field(&self.0.r#type),
            ["id"] => text_field(&self.0.id),
            ["capabilities", name] => self.0.capabilities.iter().find(|found| *found == name).cloned(),
            _ => None,
        }
    }
}

/// gRPC services by the ids containerd gives them.
const SERVICES: [&str; 17] = [
    "containers",
    "content",
    "diff",
    "events",
    "healthcheck",
    "images",
    "introspection",
    "leases",
    "mounts",
    "namespaces",
    "sandbox-controllers",
    "sandboxes",
    "snapshots",
    "streaming",
    "tasks",
    "transfer",
    "version",
];

fn plugin(kind: &str, id: &str) -> Plugin {
    Plugin { r#type: format!("io.containerd.{kind}.v1"), id: id.to_owned(), ..Default::default() }
}

fn with_platform(plugin: Plugin) -> Plugin {
    Plugin { platforms: vec![own_platform()], ..plugin }
}

fn with_root(plugin: Plugin, root: &Path) -> Plugin {
    Plugin { exports: BTreeMap::from([("root".to_owned(), root.display().to_string())]), ..plugin }
}

/// In the names of the image spec.
pub(crate) fn own_platform() -> Platform {
    let (architecture, variant) = berth_types::architecture::host();
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

impl Face {
    fn plugins(&self) -> Vec<Plugin> {
        let data = &self.options.data_root;
        let remap = self.engine.image_store().maps_ids().then_some("remap-ids");
        let mut plugins = vec![
            with_root(plugin("content", "content"), &data.join("content")),
            Plugin {
                capabilities: remap.into_iter().chain(["rebase"]).map(str::to_owned).collect(),
                ..with_platform(plugin("snapshotter", "overlayfs"))
            },
            with_root(plugin("metadata", "redb"), &data.join("metadata.redb")),
            with_platform(plugin("differ", "walking")),
            plugin("event", "exchange"),
            plugin("gc", "scheduler"),
            plugin("lease", "manager"),
            Plugin {
                capabilities: crate::restart::POLICIES.map(str::to_owned).to_vec(),
                ..plugin("monitor.container", "restart")
            },
            Plugin { r#type: "io.containerd.runtime.v2".to_owned(), ..with_platform(plugin("runtime", "task")) },
            Plugin { r#type: "io.containerd.ttrpc.v1".to_owned(), id: "events".to_owned(), ..Default::default() },
        ];
        let external = self.engine.image_store().proxies().iter().map(|proxy| proxy.name());
        plugins.extend(external.map(|name| with_platform(plugin("snapshotter", name))));
        if let Some(snapshotter) = plugins.get_mut(1) {
            let root = data.join("snapshots").join(self.engine.image_store().snapshotter());
            snapshotter.exports.insert("root".to_owned(), root.display().to_string());
        }
        plugins.extend(SERVICES.map(|id| plugin("grpc", id)));
        plugins
    }
}

#[tonic::async_trait]
impl Introspection for Face {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Answer<PluginsResponse> {
        let filters = filters(&request.into_inner().filters)?;
        let plugins = Self::plugins(self).into_iter().filter(|found| filters.matches(&PluginFields(found))).collect();
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _: Request<()>) -> Answer<ServerResponse> {
        let pidns = std::fs::metadata("/proc/self/ns/pid").map(|found| found.ino()).unwrap_or_default();
        Ok(Response::new(ServerResponse {
            uuid: uuid(self.engine.id()),
            pid: u64::from(std::process::id()),
            pidns,
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(&self, request: Request<PluginInfoRequest>) -> Answer<PluginInfoResponse> {
        let request = request.into_inner();
        let found = Self::plugins(self).into_iter().find(|p| p.r#type == request.r#type && p.id == request.id);
        let found = found.ok_or_else(|| {
            Status::not_found(format!("plugin {:?} of type {:?}: not found", request.id, request.r#type))
        })?;
        if request.options.is_some() {
            return Err(Status::unimplemented(format!("plugin {:?} takes no options", request.id)));
        }
        Ok(Response::new(PluginInfoResponse { plugin: Some(found), extra: None }))
    }
}

/// The first half of our id, in the form that clients print.
fn uuid(id: &str) -> String {
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
