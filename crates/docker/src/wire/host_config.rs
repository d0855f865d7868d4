//! Docker's `HostConfig` and its resources, both ways; also the body of `update`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_engine::api::OWN_RUNTIME;
use berth_engine::api::UpdateRequest;
use berth_engine::config::{DeviceMapping, HostConfig, MountRequest, PortBinding, Resources, RestartPolicy, Ulimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::tolerant::{parse, refuse_unknown};
use crate::error::{ApiError, ApiResult};

/// Fields that need no action, or are the client's own affair.
const HARMLESS: &[&str] = &["ContainerIDFile", "ConsoleSize"];

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct WireHostConfig {
    binds: Vec<String>,
    volumes_from: Vec<String>,
    volume_driver: String,
    mounts: Vec<WireMount>,
    tmpfs: BTreeMap<String, String>,
    readonly_rootfs: bool,
    pub(super) network_mode: String,
    port_bindings: BTreeMap<String, Vec<WirePortBinding>>,
    publish_all_ports: bool,
    dns: Vec<String>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Vec<String>,
    restart_policy: WireRestartPolicy,
    auto_remove: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    privileged: bool,
    security_opt: Vec<String>,
    group_add: Vec<String>,
    pid_mode: String,
    ipc_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    cgroupns_mode: String,
    userns_mode: String,
    devices: Vec<WireDevice>,
    device_cgroup_rules: Vec<String>,
    ulimits: Vec<WireUlimit>,
    sysctls: BTreeMap<String, String>,
    shm_size: i64,
    init: Option<bool>,
    runtime: String,
    oom_score_adj: i64,
    oom_kill_disable: bool,
    cgroup_parent: String,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
    log_config: WireLogConfig,
    annotations: BTreeMap<String, String>,
    isolation: String,
    #[serde(flatten)]
    resources: WireResources,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireResources {
    memory: i64,
    memory_reservation: i64,
    memory_swap: i64,
    memory_swappiness: Option<i64>,
    nano_cpus: i64,
    cpu_shares: i64,
    cpu_period: i64,
    cpu_quota: i64,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: Option<i64>,
    blkio_weight: u16,
    blkio_weight_device: Vec<WireWeight>,
    blkio_device_read_bps: Vec<WireThrottle>,
    blkio_device_write_bps: Vec<WireThrottle>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    blkio_device_read_iops: Vec<WireThrottle>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    blkio_device_write_iops: Vec<WireThrottle>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireWeight {
    path: PathBuf,
    weight: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireThrottle {
    path: PathBuf,
    rate: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireDevice {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct WirePortBinding {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireRestartPolicy {
    name: String,
    maximum_retry_count: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireLogConfig {
    #[serde(rename = "Type")]
    kind: String,
    config: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireMount {
    #[serde(rename = "Type")]
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    bind_options: WireBindOptions,
    tmpfs_options: WireTmpfsOptions,
    volume_options: WireVolumeOptions,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireBindOptions {
    propagation: String,
    non_recursive: bool,
    create_mountpoint: bool,
    read_only_non_recursive: bool,
    read_only_force_recursive: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireVolumeOptions {
    no_copy: bool,
    labels: BTreeMap<String, String>,
    driver_config: WireDriverConfig,
    subpath: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireDriverConfig {
    name: String,
    options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireTmpfsOptions {
    size_bytes: Option<i64>,
    mode: Option<u32>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireUpdate {
    restart_policy: Option<WireRestartPolicy>,
    #[serde(flatten)]
    resources: WireResources,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl WireHostConfig {
    /// # Errors
    /// `InvalidArgument` or `Unimplemented`, naming the field.
    pub(super) fn into_engine(self) -> ApiResult<HostConfig> {
        refuse_unknown("HostConfig", &unknown(&self.other), HARMLESS)?;
        if !matches!(&*self.isolation, "" | "default") {
            return Err(ApiError::unimplemented(&format!("isolation {}: Linux has only the default", self.isolation)));
        }
        let mounts = self.mounts.into_iter().map(WireMount::into_engine).collect::<ApiResult<_>>()?;
        Ok(HostConfig {
            binds: self.binds,
            volumes_from: self.volumes_from,
            volume_driver: self.volume_driver,
            mounts,
            tmpfs: self.tmpfs,
            read_only_rootfs: self.readonly_rootfs,
            network_mode: self.network_mode,
            port_bindings: self
                .port_bindings
                .into_iter()
                .map(|(port, to)| (port, to.into_iter().map(port_binding).collect()))
                .collect(),
            publish_all_ports: self.publish_all_ports,
            dns: self.dns,
            dns_options: self.dns_options,
            dns_search: self.dns_search,
            extra_hosts: self.extra_hosts,
            restart_policy: self.restart_policy.into_engine()?,
            auto_remove: self.auto_remove,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            security_opt: self.security_opt,
            group_add: self.group_add,
            pid_mode: self.pid_mode,
            ipc_mode: self.ipc_mode,
            uts_mode: self.uts_mode,
            cgroupns_mode: self.cgroupns_mode,
            userns_mode: self.userns_mode,
            devices: self.devices.into_iter().map(device).collect(),
            device_cgroup_rules: self.device_cgroup_rules,
            ulimits: self.ulimits.into_iter().map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
            sysctls: self.sysctls,
            shm_size_bytes: asked(self.shm_size),
            init: self.init,
            runtime: self.runtime,
            oom_score_adj: asked(self.oom_score_adj),
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            cgroup_parent: self.cgroup_parent,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            log_driver: self.log_config.kind,
            log_options: self.log_config.config,
            annotations: self.annotations,
            resources: self.resources.into_engine(),
        })
    }
}

/// Two flattened members see each other's fields; what the resources know is not unknown.
fn unknown(fields: &Map<String, Value>) -> Map<String, Value> {
    let known = serde_json::to_value(WireResources::default()).unwrap_or_default();
    fields.iter().filter(|(name, _)| known.get(name).is_none()).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Docker's wire says "not asked" with zero.
fn asked(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

fn port_binding(wire: WirePortBinding) -> PortBinding {
    PortBinding { host_ip: wire.host_ip, host_port: wire.host_port }
}

fn device(wire: WireDevice) -> DeviceMapping {
    DeviceMapping {
        host_path: wire.path_on_host,
        container_path: wire.path_in_container,
        permissions: wire.cgroup_permissions,
    }
}

impl WireRestartPolicy {
    fn into_engine(self) -> ApiResult<RestartPolicy> {
        let retries = self.maximum_retry_count;
        if retries > 0 && self.name != "on-failure" {
            let message = format!("restart policy {:?} takes no maximum retry count; only on-failure does", self.name);
            return Err(ApiError::invalid(message));
        }
        match self.name.as_str() {
            "" | "no" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => Ok(RestartPolicy::OnFailure(retries)),
            other => Err(ApiError::invalid(format!(
                "restart policy {other:?} is not valid; write no, always, on-failure[:retries] or unless-stopped"
            ))),
        }
    }
}

impl WireMount {
    fn into_engine(self) -> ApiResult<MountRequest> {
        refuse_unknown(&format!("mount {}", self.target), &self.other, &["Consistency"])?;
        refuse_unknown(&format!("mount {}: TmpfsOptions", self.target), &self.tmpfs_options.other, &[])?;
        Ok(MountRequest {
            kind: self.kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            propagation: self.bind_options.propagation,
            non_recursive: self.bind_options.non_recursive,
            create_mountpoint: self.bind_options.create_mountpoint,
            read_only_non_recursive: self.bind_options.read_only_non_recursive,
            read_only_force_recursive: self.bind_options.read_only_force_recursive,
            tmpfs_size_bytes: self.tmpfs_options.size_bytes,
            tmpfs_mode: self.tmpfs_options.mode,
            volume_no_copy: self.volume_options.no_copy,
            volume_driver: self.volume_options.driver_config.name,
            volume_options: self.volume_options.driver_config.options,
            volume_labels: self.volume_options.labels,
            volume_subpath: self.volume_options.subpath,
        })
    }
}

impl WireResources {
    fn into_engine(self) -> Resources {
        let throttle = |list: Vec<WireThrottle>| list.into_iter().map(|t| (t.path, t.rate)).collect();
        Resources {
            memory: asked(self.memory),
            memory_reservation: asked(self.memory_reservation),
            memory_swap: asked(self.memory_swap),
            memory_swappiness: self.memory_swappiness.filter(|s| *s != -1),
            nano_cpus: asked(self.nano_cpus),
            cpu_shares: asked(self.cpu_shares),
            cpu_period_us: asked(self.cpu_period),
            cpu_quota_us: asked(self.cpu_quota),
            cpu_rt_period_us: asked(self.cpu_realtime_period),
            cpu_rt_runtime_us: asked(self.cpu_realtime_runtime),
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids_limit: self.pids_limit.filter(|n| *n != 0),
            blkio_weight: (self.blkio_weight != 0).then_some(self.blkio_weight),
            blkio_weight_device: self.blkio_weight_device.into_iter().map(|w| (w.path, w.weight)).collect(),
            device_read_bps: throttle(self.blkio_device_read_bps),
            device_write_bps: throttle(self.blkio_device_write_bps),
            device_read_iops: throttle(self.blkio_device_read_iops),
            device_write_iops: throttle(self.blkio_device_write_iops),
        }
    }
}

/// # Errors
/// As for create.
pub(crate) fn update_from_wire(body: &[u8]) -> ApiResult<UpdateRequest> {
    let wire: WireUpdate = parse("container update", body)?;
    refuse_unknown("update", &unknown(&wire.other), &[])?;
    let restart_policy = match wire.restart_policy {
        Some(policy) if !policy.name.is_empty() => Some(policy.into_engine()?),
        _ => None,
    };
    Ok(UpdateRequest { resources: wire.resources.into_engine(), restart_policy })
}

fn resources_into_wire(resources: &Resources) -> WireResources {
    let throttle = |list: &[(PathBuf, u64)]| {
        list.iter().map(|(path, rate)| WireThrottle { path: path.clone(), rate: *rate }).collect()
    };
    WireResources {
        memory: resources.memory.unwrap_or(0),
        memory_reservation: resources.memory_reservation.unwrap_or(0),
        memory_swap: resources.memory_swap.unwrap_or(0),
        memory_swappiness: resources.memory_swappiness,
        nano_cpus: resources.nano_cpus.unwrap_or(0),
        cpu_shares: resources.cpu_shares.unwrap_or(0),
        cpu_period: resources.cpu_period_us.unwrap_or(0),
        cpu_quota: resources.cpu_quota_us.unwrap_or(0),
        cpu_realtime_period: resources.cpu_rt_period_us.unwrap_or(0),
        cpu_realtime_runtime: resources.cpu_rt_runtime_us.unwrap_or(0),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        pids_limit: resources.pids_limit,
        blkio_weight: resources.blkio_weight.unwrap_or(0),
        blkio_weight_device: resources
            .blkio_weight_device
            .iter()
            .map(|(path, weight)| WireWeight { path: path.clone(), weight: *weight })
            .collect(),
        blkio_device_read_bps: throttle(&resources.device_read_bps),
        blkio_device_write_bps: throttle(&resources.device_write_bps),
        blkio_device_read_iops: throttle(&resources.device_read_iops),
        blkio_device_write_iops: throttle(&resources.device_write_iops),
    }
}

fn restart_into_wire(policy: RestartPolicy) -> Value {
    let (name, retries) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::OnFailure(retries) => ("on-failure", retries),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": retries })
}

fn mount_into_wire(mount: &MountRequest) -> Value {
    let mut wire = json!({ "Type": mount.kind, "Target": mount.target });
    if !mount.source.is_empty() {
        wire["Source"] = json!(mount.source);
    }
    if mount.read_only {
        wire["ReadOnly"] = json!(true);
    }
    if mount.kind == "bind" {
        wire["BindOptions"] = json!({
            "Propagation": mount.propagation,
            "NonRecursive": mount.non_recursive,
            "CreateMountpoint": mount.create_mountpoint,
            "ReadOnlyNonRecursive": mount.read_only_non_recursive,
            "ReadOnlyForceRecursive": mount.read_only_force_recursive,
        });
    }
    if mount.kind == "volume" {
        wire["VolumeOptions"] = json!({
            "NoCopy": mount.volume_no_copy,
            "Labels": mount.volume_labels,
            "Subpath": mount.volume_subpath,
            "DriverConfig": { "Name": mount.volume_driver, "Options": mount.volume_options },
        });
    }
    if mount.kind == "tmpfs" {
        wire["TmpfsOptions"] = json!({ "SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode });
    }
    wire
}

fn ports_into_wire(ports: &BTreeMap<String, Vec<PortBinding>>) -> Value {
    let binding = |b: &PortBinding| json!({ "HostIp": b.host_ip, "HostPort": b.host_port });
    ports
        .iter()
        .map(|(port, to)| (port.clone(), to.iter().map(binding).collect()))
        .collect::<Map<String, Value>>()
        .into()
}

/// Docker's `HostConfig` of `inspect`.
pub(crate) fn into_wire(host: &HostConfig) -> Value {
    let devices: Vec<Value> = host
        .devices
        .iter()
        .map(|d| json!({ "PathOnHost": d.host_path, "PathInContainer": d.container_path, "CgroupPermissions": d.permissions }))
        .collect();
    let ulimits: Vec<Value> =
        host.ulimits.iter().map(|u| json!({ "Name": u.name, "Soft": u.soft, "Hard": u.hard })).collect();
    let mut wire = json!({
        "Binds": if host.binds.is_empty() { Value::Null } else { json!(host.binds) },
        "ContainerIDFile": "",
        "LogConfig": { "Type": host.log_driver, "Config": host.log_options },
        "NetworkMode": host.network_mode,
        "PortBindings": ports_into_wire(&host.port_bindings),
        "RestartPolicy": restart_into_wire(host.restart_policy),
        "AutoRemove": host.auto_remove,
        "VolumeDriver": host.volume_driver,
        "VolumesFrom": if host.volumes_from.is_empty() { Value::Null } else { json!(host.volumes_from) },
        "ConsoleSize": [0, 0],
        "CapAdd": if host.cap_add.is_empty() { Value::Null } else { json!(host.cap_add) },
        "CapDrop": if host.cap_drop.is_empty() { Value::Null } else { json!(host.cap_drop) },
        "CgroupnsMode": host.cgroupns_mode,
        "Dns": host.dns,
        "DnsOptions": host.dns_options,
        "DnsSearch": host.dns_search,
        "ExtraHosts": if host.extra_hosts.is_empty() { Value::Null } else { json!(host.extra_hosts) },
        "GroupAdd": if host.group_add.is_empty() { Value::Null } else { json!(host.group_add) },
        "IpcMode": host.ipc_mode,
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": host.oom_score_adj.unwrap_or(0),
        "PidMode": host.pid_mode,
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all_ports,
        "ReadonlyRootfs": host.read_only_rootfs,
        "SecurityOpt": if host.security_opt.is_empty() { Value::Null } else { json!(host.security_opt) },
        "UTSMode": host.uts_mode,
        "UsernsMode": host.userns_mode,
        "ShmSize": host.shm_size_bytes.unwrap_or(64 << 20),
        // Docker's clients expect a name; none asked for is our own.
        "Runtime": if host.runtime.is_empty() { OWN_RUNTIME } else { &host.runtime },
        "Isolation": "",
        "CgroupParent": host.cgroup_parent,
        "Devices": devices,
        "DeviceCgroupRules": if host.device_cgroup_rules.is_empty() { Value::Null } else { json!(host.device_cgroup_rules) },
        "DeviceRequests": null,
        "OomKillDisable": host.oom_kill_disable,
        "Ulimits": ulimits,
        "MaskedPaths": host.masked_paths,
        "ReadonlyPaths": host.readonly_paths,
    });
    let resources = serde_json::to_value(resources_into_wire(&host.resources)).unwrap_or_default();
    if let (Some(wire), Value::Object(resources)) = (wire.as_object_mut(), resources) {
        wire.extend(resources);
    }
    if !host.mounts.is_empty() {
        wire["Mounts"] = host.mounts.iter().map(mount_into_wire).collect();
    }
    if !host.tmpfs.is_empty() {
        wire["Tmpfs"] = json!(host.tmpfs);
    }
    if !host.sysctls.is_empty() {
        wire["Sysctls"] = json!(host.sysctls);
    }
    if !host.annotations.is_empty() {
        wire["Annotations"] = json!(host.annotations);
    }
    if let Some(init) = host.init {
        wire["Init"] = json!(init);
    }
    wire
}
