//! What a client asks of a container: Docker's `Config` and `HostConfig` as our own types, persisted with the container.
//!
//! Units are in the names or docs. `None` and empty mean "not asked"; defaults are applied by `plan`, not here.
//! Unknown on-disk fields are ignored, missing ones default, so a newer daemon reads older records.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What runs in the container; image config merged in at create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The image as the client named it.
    pub image: String,
    pub hostname: String,
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty: the image's, else root.
    pub user: String,
    pub env: Vec<String>,
    /// `None`: the image's. `Some(empty)`: explicitly none.
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub stop_signal: String,
    pub stop_timeout_seconds: Option<i64>,
    pub network_disabled: bool,
    /// Spans of the start are recorded (`--trace`).
    pub trace: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `src:dst[:opts]` as given.
    pub binds: Vec<String>,
    /// `container[:ro|rw]`, whose mounts are added.
    pub volumes_from: Vec<String>,
    /// Driver for named volumes of `binds`.
    pub volume_driver: String,
    pub mounts: Vec<MountRequest>,
    /// Container path to mount options (`size=64m,mode=1777`).
    pub tmpfs: BTreeMap<String, String>,
    pub read_only_rootfs: bool,
    /// `default|bridge|none|host|container:<id>`.
    pub network_mode: String,
    /// Container port (`80/tcp`) to host bindings.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub publish_all_ports: bool,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub group_add: Vec<String>,
    pub pid_mode: String,
    pub ipc_mode: String,
    pub uts_mode: String,
    pub cgroupns_mode: String,
    /// `""|host|private|auto|map:...` (see docs/cli.md).
    pub userns_mode: String,
    pub devices: Vec<DeviceMapping>,
    pub device_cgroup_rules: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub shm_size_bytes: Option<i64>,
    pub init: Option<bool>,
    pub runtime: String,
    pub oom_score_adj: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub cgroup_parent: String,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub log_driver: String,
    pub log_options: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub resources: Resources,
}

/// Limits, also what `update` takes. Bytes unless named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// Memory plus swap; -1 unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub nano_cpus: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub cpu_period_us: Option<i64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_rt_period_us: Option<i64>,
    pub cpu_rt_runtime_us: Option<i64>,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// 0 or -1: unlimited.
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u16>,
    pub blkio_weight_device: Vec<(PathBuf, u64)>,
    pub device_read_bps: Vec<(PathBuf, u64)>,
    pub device_write_bps: Vec<(PathBuf, u64)>,
    pub device_read_iops: Vec<(PathBuf, u64)>,
    pub device_write_iops: Vec<(PathBuf, u64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRequest {
    /// `bind|tmpfs|volume|image|npipe|cluster`.
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
    pub tmpfs_size_bytes: Option<i64>,
    pub tmpfs_mode: Option<u32>,
    /// Do not fill an empty volume from the image.
    pub volume_no_copy: bool,
    pub volume_driver: String,
    pub volume_options: BTreeMap<String, String>,
    pub volume_labels: BTreeMap<String, String>,
    /// Directory of the volume to mount instead of all of it.
    pub volume_subpath: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortBinding {
    /// Empty: all addresses.
    pub host_ip: String,
    /// A port, a range `8000-8010`, or empty: the engine picks one.
    pub host_port: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceMapping {
    pub host_path: String,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", content = "maximum_retries", rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    /// Retries at most; 0: without end.
    OnFailure(u32),
    UnlessStopped,
}
