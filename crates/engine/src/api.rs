//! The engine as its faces see it. Names accepted by `*_ref: &str` arguments: full id, unambiguous id prefix, or name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use berth_core::Event;
pub use berth_image::{FsckReport, LayerListing, PathStory, ThinPool};
pub use berth_registry::{Credentials, Proxies, RegistryOptions};
pub use berth_shim_client::OWN_RUNTIME;
use berth_types::{ByteCount, ContainerId, Digest, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use crate::caller::Caller;
use crate::config::{ContainerConfig, HostConfig, Resources, RestartPolicy};
pub use crate::container_defaults::ContainerDefaults;
pub use crate::containerd::{TenantPull, TenantPulled, TenantPush, TransferLease, TransferStep};
pub use crate::engine::Engine;
pub use crate::error::EngineError;
pub use crate::explain::{ExplainLine, ExplainReport};
pub use crate::images::CollectionBudget;
pub use crate::logs::{LogLine, LogLines};
pub use crate::metrics::OperationTimer;
pub use crate::runtimes::{RuntimeEntry, Runtimes};
pub use crate::shims::{ShimTask, ShimView};
pub use crate::trace::TraceReport;
pub use crate::why::audit::KilledCall;
pub use crate::why::end::{Disposition, End, PastEnd, Sender, Sent};
pub use crate::why::{Cause, Evidence, WhyReport};

/// Where a daemon keeps its things.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    pub data_root: PathBuf,
    /// How registries are reached.
    pub registry: RegistryOptions,
    pub state_root: PathBuf,
    /// Our shim's binary; a sealed copy of it is made once at start.
    pub shim_binary: PathBuf,
    /// Directories in which shims of other runtimes are looked for, in order.
    pub shim_search: Vec<PathBuf>,
    /// Bytes of the static `berth-init` for `--init`; empty when the build has none.
    pub init_binary: &'static [u8],
    /// OCI archive of the image `hello`, loaded the first time somebody asks for `hello` and the store has none; empty when the build has none.
    pub hello_image: &'static [u8],
    /// Parent of all containers' cgroups: a path (`/berth`), or a slice (`system.slice`) for systemd.
    pub cgroup_parent: String,
    pub cgroup_driver: CgroupDriver,
    /// Bridge name (`berth0`), its IPv4 network, and the nftables table (`berth`); private instances choose their own.
    pub bridge_name: String,
    pub bridge_subnet: String,
    /// IPv6 network of the bridge; `None`: IPv4 only. Left out with a warning where the host has no IPv6.
    pub bridge_subnet6: Option<String>,
    pub nft_table: String,
    /// Name of the snapshotter; nothing: the best that works.
    pub snapshotter: Option<String>,
    /// When images go by themselves.
    pub collection: CollectionBudget,
    /// Of the snapshotter `devmapper`.
    pub thin_pool: Option<ThinPool>,
    /// External snapshotters that can be named.
    pub proxy_snapshotters: Vec<berth_snapshot_proxy::ProxySettings>,
    /// What containers get that do not say otherwise.
    pub defaults: ContainerDefaults,
    /// Runtimes of the operator's, and which one is the default.
    pub runtimes: Runtimes,
    /// Control file of the fault points (tests of crashes); `None`: there are none.
    pub fault_points: Option<PathBuf>,
}

/// Who makes and limits the containers' cgroups (S-040).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime, as directories.
    #[default]
    Cgroupfs,
    /// The machine's systemd, as transient scopes `berth-<id>.scope`.
    Systemd,
}

impl CgroupDriver {
    /// As `docker info` and the CRI call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// Kernel namespaces and cgroup of a running container, read from `/proc` (S-005).
#[derive(Debug, Clone, Default, Serialize)]
pub struct KernelView {
    /// `mnt` -> inode number, for all eight types.
    pub namespaces: BTreeMap<String, u64>,
    /// Controller (v1) or `""` (v2) -> path.
    pub cgroups: BTreeMap<String, String>,
}

/// Everything `inspect` shows.
#[derive(Debug, Clone)]
pub struct ContainerView {
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    pub created: Timestamp,
    pub path: String,
    pub args: Vec<String>,
    pub config: Arc<ContainerConfig>,
    pub host_config: Arc<HostConfig>,
    pub image_id: Digest,
    pub image_name: String,
    pub status: Status,
    pub pid: u32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub restart_count: u32,
    pub network: NetworkView,
    pub mounts: Vec<MountView>,
    pub log_path: PathBuf,
    pub resolv_conf_path: PathBuf,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    pub driver: String,
    pub upper_dir: PathBuf,
    pub work_dir: PathBuf,
    /// Top to bottom.
    pub lower_dirs: Vec<PathBuf>,
    pub exec_ids: Vec<String>,
    pub kernel: Option<KernelView>,
    pub size_rw: Option<u64>,
    pub size_rootfs: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView {
    /// `bridge|host|none|container:<id>`
    pub mode: String,
    pub network_id: String,
    pub endpoint_id: String,
    pub mac: String,
    pub ipv4: String,
    pub ipv4_prefix: u8,
    pub gateway: String,
    pub ipv6: String,
    pub ipv6_prefix: u8,
    pub gateway_v6: String,
    /// Container port (`80/tcp`) -> (host ip, host port) in force.
    pub ports: BTreeMap<String, Vec<(String, u16)>>,
    pub sandbox_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountView {
    pub kind: String,
    /// Of a volume.
    #[serde(default)]
    pub name: String,
    pub source: String,
    pub destination: String,
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    pub limit: Option<usize>,
    pub size: bool,
    /// Docker's filter map: key -> values.
    pub filters: Filters,
}

pub type Filters = BTreeMap<String, Vec<String>>;

#[derive(Debug, Clone, Default)]
pub struct CreateOutcome {
    pub id: String,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecConfig {
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub tty: bool,
    pub privileged: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: Option<String>,
    /// Spans of the start are recorded (`exec --trace`).
    pub trace: bool,
}

#[derive(Debug, Clone)]
pub struct ExecView {
    pub id: String,
    pub container_id: ContainerId,
    pub config: ExecConfig,
    pub running: bool,
    pub exit_code: Option<i32>,
    pub pid: u32,
}

#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Replay what the log has first.
    pub logs: bool,
    pub stream: bool,
    /// `ctrl-p,ctrl-q` syntax; None: the default.
    pub detach_keys: Option<String>,
    /// Bytes already read from the client by the HTTP layer.
    pub early_input: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// None: all.
    pub tail: Option<usize>,
    pub timestamps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: String,
}

#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Resume after this sequence number (ours).
    pub after_sequence: Option<u64>,
    pub filters: Filters,
}

/// One sample of what a container uses; cumulative counters as the kernel has them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    pub read_at: Option<Timestamp>,
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub cpu_per_cpu_ns: Vec<u64>,
    pub system_cpu_ns: u64,
    pub online_cpus: u32,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_ns: u64,
    pub memory_usage: u64,
    pub memory_max_usage: u64,
    pub memory_limit: u64,
    pub memory_stats: BTreeMap<String, u64>,
    pub oom_kills: u64,
    pub pids_current: u64,
    pub pids_limit: Option<u64>,
    /// (major, minor, op, bytes)
    pub blkio_bytes: Vec<(u64, u64, String, u64)>,
    pub blkio_ops: Vec<(u64, u64, String, u64)>,
    pub networks: BTreeMap<String, NetworkCounters>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct NetworkCounters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

#[derive(Debug, Clone)]
pub struct ImageView {
    pub id: Digest,
    /// Familiar `name:tag`.
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub created: Option<Timestamp>,
    pub size_bytes: u64,
    pub architecture: String,
    pub os: String,
    pub author: String,
    pub comment: String,
    /// The image config's `config` object, verbatim JSON (image-spec).
    pub config: serde_json::Value,
    pub diff_ids: Vec<Digest>,
    pub labels: BTreeMap<String, String>,
    /// Layer directories, top to bottom.
    pub layer_dirs: Vec<PathBuf>,
    pub containers: i64,
    pub last_tagged: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// Image id where known, else `<missing>`.
    pub id: String,
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub size_bytes: u64,
    pub comment: String,
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageDeleted {
    Untagged(String),
    Deleted(String),
}

/// Progress of load, import, save, unpack: one message per change, at most some ten a second.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// Layer digest (short) or object; empty for a plain line.
    pub id: String,
    pub status: String,
    pub current: Option<ByteCount>,
    pub total: Option<ByteCount>,
}

/// What is to be pulled, and on whose behalf.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// `name[:tag][@digest]`
    pub name: String,
    pub all_tags: bool,
    /// `os/architecture[/variant]`; `None`: this machine's.
    pub platform: Option<String>,
    pub credentials: Credentials,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    /// Familiar name with tag or digest.
    pub reference: String,
    /// Of the manifest or index the name stands for.
    pub digest: Digest,
    /// Whether anything changed here.
    pub is_new: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    pub tag: String,
    pub digest: Digest,
    /// Of the manifest.
    pub size_bytes: u64,
}

/// A document as a registry has it.
#[derive(Debug, Clone)]
pub struct RemoteView {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
    /// `os/architecture[/variant]` of each image it leads to.
    pub platforms: Vec<String>,
}

/// What a pull would do.
#[derive(Debug, Clone, Serialize)]
pub struct PullPlanView {
    pub reference: String,
    /// In the order they are asked.
    pub hosts: Vec<String>,
    pub digest: Digest,
    pub image_id: Digest,
    pub platform: String,
    /// (digest, packed bytes) of layers that must come, bottom to top.
    pub to_fetch: Vec<(Digest, u64)>,
    pub shared: Vec<(Digest, u64)>,
    pub fetch_bytes: u64,
    /// Already here from a pull that was interrupted.
    pub resumed_bytes: u64,
    pub shared_bytes: u64,
    pub unpacked_bytes_estimated: u64,
    pub free_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    pub container_ref: String,
    /// `None`: untagged.
    pub reference: Option<String>,
    pub author: String,
    pub message: String,
    pub pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// Go's `os.FileMode` bits, as `X-Docker-Container-Path-Stat` wants.
    pub go_mode: u32,
    pub modified: Timestamp,
    pub link_target: String,
}

#[derive(Debug, Clone, Default)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PlanView {
    pub steps: Vec<PlanStep>,
    pub warnings: Vec<String>,
}

/// One step of `--plan`: what, on which object, and why it is there.
#[derive(Debug, Clone, Serialize)]
pub struct PlanStep {
    pub party: berth_types::Party,
    pub name: String,
    pub object: String,
    pub reason: String,
}

/// Facts for `info`; the face adds what is its own.
#[derive(Debug, Clone, Default)]
pub struct InfoView {
    pub id: String,
    pub name: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub kernel_version: String,
    pub operating_system: String,
    pub architecture: String,
    pub cpus: usize,
    pub memory_bytes: u64,
    pub cgroup_driver: String,
    /// `1`, `2`; hybrid counts as 1.
    pub cgroup_version: String,
    pub storage_driver: String,
    pub storage_status: Vec<(String, String)>,
    pub default_runtime: String,
    /// Name -> binary.
    pub runtimes: BTreeMap<String, String>,
    pub security_options: Vec<String>,
    pub data_root: PathBuf,
    pub warnings: Vec<String>,
    /// Kernel features found: name -> yes/no or value (openat2, clone3, cgroup.kill, idmapped mounts …).
    pub features: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    pub layers_bytes: u64,
    pub images: Vec<(ImageView2, u64)>,
    pub containers: Vec<(String, u64)>,
    pub volumes: Vec<VolumeView>,
    /// Everything below the data root, each byte once.
    pub owners: Vec<DiskOwner>,
}

/// One kind of thing that takes space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOwner {
    pub kind: &'static str,
    pub count: u64,
    /// Blocks on the disk, as `du` counts them.
    pub bytes: u64,
}

/// (id, tags) of an image in a disk usage report, with its unique bytes.
pub type ImageView2 = (String, Vec<String>);

/// A volume to be made; an empty name makes an anonymous one.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct VolumeView {
    pub name: String,
    pub mountpoint: PathBuf,
    pub created: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub is_anonymous: bool,
    /// Ids of containers that have it.
    pub users: Vec<String>,
    /// Where it was asked for.
    pub size_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct PruneOutcome {
    pub deleted: Vec<String>,
    pub reclaimed_bytes: u64,
}

type Result<T> = std::result::Result<T, EngineError>;
/// Chunks of a tar or other byte stream; an `Err` ends it.
pub type ByteStream = mpsc::Receiver<Result<bytes_chunk::Chunk>>;

/// A chunk of bytes.
pub mod bytes_chunk {
    pub type Chunk = Vec<u8>;
}

#[derive(Debug, Clone, Default)]
pub struct NetworkSummary {
    pub id: String,
    pub name: String,
    pub driver: String,
    pub subnets: Vec<(String, String)>,
    /// Addresses that containers have, and those that are left; of the first subnet.
    pub addresses: Option<(u64, u64)>,
    pub created: Option<Timestamp>,
    /// container id -> (name, endpoint id, mac, ipv4/prefix, ipv6/prefix)
    pub containers: BTreeMap<String, (String, String, String, String, String)>,
}
