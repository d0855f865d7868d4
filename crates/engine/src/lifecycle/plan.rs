//! `--plan`: the steps of create and start as they would be done, with reasons; nothing changes.

use std::path::Path;
use std::sync::Arc;

use berth_runtime::LayerOwners;
use berth_shim_client::RuntimeChoice;
use berth_types::{Party, Timestamp};

use crate::api::{PlanStep, PlanView, Status};
use crate::config::{ContainerConfig, HostConfig};
use crate::engine::Engine;
use crate::error::Result;
use crate::host_objects::{self, HostObjects};
use crate::merge::merge;
use crate::names;
use crate::record::{RECORD_VERSION, Record, RunState};
use crate::request::Request;
use crate::request::mounts::MountKind;
use crate::request::namespaces::{NetworkMode, UserNsMode};
use crate::request::security::SeccompMode;
use crate::spec::{self, NamespacePaths, Reason, SpecInput};

impl Engine {
    /// Dry run of create + start: the ordered steps with reasons; nothing changes.
    ///
    /// # Errors
    /// Those create would give.
    pub async fn plan(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<PlanView> {
        let name = name.map(str::to_owned);
        self.blocking(move |engine| engine.plan_now(name.as_deref(), config, host)).await
    }

    fn plan_now(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<PlanView> {
        let id: berth_types::ContainerId = names::new_id().parse()?;
        if let Some(name) = name {
            names::check(name)?;
            drop(self.inner.registry.reserve(name, &id)?);
        }
        let image = self.image_named(&config.image)?;
        let config = merge(config, &image.config)?;
        let host = self.with_defaults(host);
        let request = Request::parse(&config, &host, &self.inner.facts)?;
        let runtime = self.runtime_of(&host, &request)?;
        let record = Record {
            version: RECORD_VERSION,
            name: name.unwrap_or(id.short()).to_owned(),
            id,
            created: Timestamp::now(),
            image_id: image.id,
            image_name: config.image.clone(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            config: Arc::new(config),
            host: Arc::new(host),
            id_block: matches!(request.namespaces.user, UserNsMode::Auto).then_some(1 << 20),
            endpoint: None,
            state: RunState { status: Status::Created, ..RunState::created() },
        };
        let mut steps = self.engine_steps(&record, &request, image.layers.len());
        let lowers = image.layers.iter().rev().map(|layer| layer.directory.clone()).collect();
        let upper = self.inner.paths.data.join("snapshots");
        let rootfs = berth_rootfs::OverlayRootfs {
            lowers,
            upper: Some(upper.join("upper")),
            work: Some(upper.join("work")),
            is_volatile: record.host.auto_remove,
        };
        match runtime {
            None => steps.extend(self.runtime_steps(&record, &request, rootfs)?),
            Some(runtime) => steps.push(foreign_step(&runtime, &record.host.runtime)),
        }
        Ok(PlanView { steps, warnings: request.warnings })
    }

    fn engine_steps(&self, record: &Record, request: &Request, layers: usize) -> Vec<PlanStep> {
        let step = |party, name: &str, object: String, reason: &str| PlanStep {
            party,
            name: name.to_owned(),
            object,
            reason: reason.to_owned(),
        };
        let kept =
            if record.host.auto_remove { "flag --rm: kept until the exit, not flushed" } else { "kept until rm" };
        let mut steps = Vec::new();
        for mount in &request.mounts {
            if let MountKind::Bind { source, .. } = &mount.kind
                && !source.exists()
            {
                steps.push(step(Party::Engine, "bind-source.create", source.display().to_string(), &mount.reason));
            }
        }
        steps.push(step(
            Party::Engine,
            "snapshot.prepare",
            format!("{layers} layers of {}", record.config.image),
            "image",
        ));
        for mount in &request.mounts {
            if let MountKind::Volume(volume) = &mount.kind {
                let object = volume.name.clone().unwrap_or_else(|| "a new volume".to_owned());
                steps.push(step(Party::Engine, "volumes.bind", object, &mount.reason));
            }
        }
        steps.push(step(Party::Engine, "metadata.create", record.name.clone(), kept));
        let network = match &request.namespaces.network {
            NetworkMode::Bridge => Some(self.inner.options.bridge_name.clone()),
            NetworkMode::None => Some("a namespace with lo only".to_owned()),
            NetworkMode::Joined(_) => None,
        };
        let asked = if record.host.network_mode.is_empty() { "default" } else { &record.host.network_mode };
        if let Some(object) = network {
            steps.push(step(Party::Engine, "network.attach", object, &format!("network {asked}")));
        }
        for port in &request.ports {
            let p = &port.mapping;
            let host = p.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
            let protocol = if p.protocol == berth_network::Protocol::Tcp { "tcp" } else { "udp" };
            let object = format!("{host}:{} -> {}/{protocol}", p.host_port, p.container_port);
            steps.push(step(Party::Engine, "port.publish", object, "flag -p"));
        }
        if request.security.seccomp != SeccompMode::Unconfined {
            steps.push(step(
                Party::Engine,
                "seccomp.compile",
                "profile".to_owned(),
                "compiled once, then taken from the cache",
            ));
        }
        steps.push(step(
            Party::Engine,
            "shim.start",
            "containerd-shim-berth-v1".to_owned(),
            "it keeps the log and the clients, whatever the runtime",
        ));
        steps.push(step(Party::Engine, "bundle.write", "config.json".to_owned(), "OCI runtime specification"));
        steps.push(step(Party::Shim, "task.create", record.id.short().to_owned(), "start workflow, step 3"));
        steps.push(step(Party::Shim, "task.start", record.id.short().to_owned(), "start workflow, step 4"));
        steps
    }

    fn runtime_steps(
        &self,
        record: &Record,
        request: &Request,
        rootfs: berth_rootfs::OverlayRootfs,
    ) -> Result<Vec<PlanStep>> {
        let objects = HostObjects::look_up(record, request)?;
        let cgroup_path = self.cgroup_path(record);
        let id_maps = host_objects::id_maps(record, request);
        let has_own_network = request.namespaces.has_own_network();
        let namespaces = NamespacePaths {
            network: has_own_network.then(|| "/proc/self/ns/net".into()),
            ..NamespacePaths::default()
        };
        let seccomp = (request.security.seccomp != SeccompMode::Unconfined)
            .then(|| self.inner.paths.seccomp().join("profile.bpf"));
        let init = (record.host.init == Some(true)).then(|| self.inner.paths.init_binary());
        let (spec, reasons) = spec::generate(&SpecInput {
            record,
            request,
            facts: &self.inner.facts,
            cgroup_path: &cgroup_path,
            files_dir: Path::new("/run/berth/tasks"),
            namespaces: &namespaces,
            id_maps: &id_maps,
            init_binary: init.as_deref(),
            seccomp_program: seccomp.as_deref(),
            devices: &objects.devices,
            block_devices: &objects.block_devices,
            volumes: &objects.volumes,
            shared_shm: objects.shared_shm.as_deref(),
        });
        let steps = berth_runtime::plan(&spec, &berth_runtime::Rootfs::Overlay(rootfs, LayerOwners::Mapped))?;
        let with_reason = |step: berth_runtime::PlannedStep| PlanStep {
            party: Party::Runtime,
            reason: reason_for(&reasons, &step).unwrap_or(step.reason),
            name: step.name,
            object: step.object,
        };
        Ok(steps.into_iter().map(with_reason).collect())
    }
}

/// What another runtime does is its own affair: here it is one step.
fn foreign_step(runtime: &RuntimeChoice, name: &str) -> PlanStep {
    let (step, binary) = match runtime {
        RuntimeChoice::Command { binary, .. } => ("runtime.create", binary),
        RuntimeChoice::Shim { binary, .. } => ("shim.create", binary),
    };
    PlanStep {
        party: Party::Runtime,
        name: step.to_owned(),
        object: binary.display().to_string(),
        reason: format!("runtime {name}"),
    }
}

/// The wish behind a step of the runtime's plan; the runtime itself only knows the spec.
fn reason_for(reasons: &[Reason], step: &berth_runtime::PlannedStep) -> Option<String> {
    let is_about = |reason: &&Reason| match step.name.as_str() {
        "limit-resources" => step.object.starts_with(&reason.object),
        "mount" => step.object == reason.object || step.object.ends_with(&format!(" {}", reason.object)),
        "read-only-rootfs" => reason.object == "/",
        _ => reason.object != "/" && step.object == reason.object,
    };
    reasons.iter().find(is_about).map(|reason| reason.reason.clone())
}
