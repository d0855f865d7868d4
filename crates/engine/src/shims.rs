//! Which shim processes there are, and which tasks each of them serves: asked of the shims themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Engine;
use crate::runtimes;

/// One shim process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShimView {
    /// On the host.
    pub pid: u32,
    /// The shim's binary.
    pub binary: String,
    /// Sorted by namespace and id.
    pub tasks: Vec<ShimTask>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShimTask {
    pub namespace: String,
    pub id: String,
    /// As `--runtime` names it.
    pub runtime: String,
}

/// Of our own, whoever asked for the container.
const OWN_BINARY: &str = "containerd-shim-berth-v1";

impl Engine {
    /// Sorted by pid. A shim that does not answer has no task here, and is noticed elsewhere.
    pub async fn shims(&self) -> Vec<ShimView> {
        let mut shims: BTreeMap<u32, ShimView> = BTreeMap::new();
        let mut add = |pid: u32, binary: String, task: ShimTask| {
            shims.entry(pid).or_insert_with(|| ShimView { pid, binary, tasks: Vec::new() }).tasks.push(task);
        };
        for container in self.inner.registry.all() {
            let Some(run) = container.lock().run.clone() else { continue };
            if let Ok(pid) = run.task.shim().shim_pid().await {
                let name = container.lock().record.host.runtime.clone();
                let runtime = if name.is_empty() { runtimes::OWN.to_owned() } else { name };
                let task = ShimTask { namespace: "default".to_owned(), id: container.id.to_string(), runtime };
                add(pid, OWN_BINARY.to_owned(), task);
            }
        }
        for member in self.inner.fleet.all_members() {
            if let Ok(pid) = member.shim.shim_pid().await {
                let name = member.shim_name();
                let binary = if member.is_on_own_shim() { OWN_BINARY.to_owned() } else { name };
                let runtime = runtimes::runtime_of_shim(&binary);
                add(pid, binary, ShimTask { namespace: member.tenant.to_string(), id: member.id.clone(), runtime });
            }
        }
        let mut shims: Vec<ShimView> = shims.into_values().collect();
        shims.iter_mut().for_each(|shim| shim.tasks.sort());
        shims
    }
}
