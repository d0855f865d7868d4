//! The command line of `berthd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_snapshot_proxy::ProxySettings;
use berth_types::ByteCount;

/// The Berth engine: Docker's API on a unix socket, containers that outlive it.
#[derive(Debug, clap::Parser)]
#[command(name = "berthd", version, about, after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Configuration file; without the flag /etc/berth/config.toml where it is there
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Directory of images, containers and logs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth")]
    pub(crate) root: PathBuf,

    /// Directory of sockets and running tasks
    #[arg(long, value_name = "DIR", default_value = "/run/berth")]
    pub(crate) state: PathBuf,

    /// Parent of the containers' cgroups: a path, or a slice for systemd [default: /berth or system.slice]
    #[arg(long, value_name = "PARENT")]
    pub(crate) cgroup_parent: Option<String>,

    /// Who makes and limits the containers' cgroups
    #[arg(long, value_name = "DRIVER", default_value = "cgroupfs", value_parser = ["cgroupfs", "systemd"])]
    pub(crate) cgroup_manager: String,

    /// Name of the bridge of the default network
    #[arg(long, value_name = "NAME", default_value = "berth0")]
    pub(crate) bridge: String,

    /// IPv4 network of the bridge; its first address is the gateway
    #[arg(long, value_name = "CIDR", default_value = "172.20.0.0/16")]
    pub(crate) subnet: String,

    /// Give containers IPv6 addresses as well
    #[arg(long)]
    pub(crate) ipv6: bool,

    /// IPv6 network of the bridge, /64 or larger; its first address is the gateway [default: a unique local one of the bridge's name]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet6: Option<String>,

    /// Name of the nftables table
    #[arg(long, value_name = "NAME", default_value = "berth")]
    pub(crate) nft_table: String,

    /// How layers are kept: erofs, overlay, btrfs, native, devmapper, or an external snapshotter [default: the one in use, else the first of them that works]
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshotter: Option<String>,

    /// External snapshotter: NAME=unix:///SOCKET[,snapshotter=REMOTE][,namespace=NAMESPACE] (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = proxy_snapshotter)]
    pub(crate) proxy_snapshotter: Vec<ProxySettings>,

    /// Thin pool of the snapshotter devmapper: the name of an active device
    #[arg(long, value_name = "NAME")]
    pub(crate) devmapper_pool: Option<String>,

    /// Most bytes of a container's files with the snapshotter devmapper
    #[arg(long, value_name = "BYTES", default_value = "10g")]
    pub(crate) devmapper_size: ByteCount,

    /// Seconds between two collections of what nothing needs; 0: none
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) gc_interval: u64,

    /// Most bytes of images, as 50g: beyond it those no container uses go, oldest first
    #[arg(long, value_name = "BYTES")]
    pub(crate) gc_max_size: Option<ByteCount>,

    /// Fewest free bytes below the data root, as 5g: with less, images no container uses go, oldest first
    #[arg(long, value_name = "BYTES")]
    pub(crate) gc_min_free: Option<ByteCount>,

    /// Images no container uses go when they were last pulled, loaded or tagged so long ago, as 720h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) gc_unused_for: Option<Duration>,

    /// The shim's binary [default: containerd-shim-berth-v1 beside berthd]
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,

    /// Group whose members may use the socket [default: root alone]
    #[arg(long, value_name = "GID")]
    pub(crate) group: Option<u32>,

    /// Mirror of Docker Hub, asked before it (repeatable)
    #[arg(long, value_name = "URL")]
    pub(crate) registry_mirror: Vec<String>,

    /// Registry that may speak plain HTTP or show any certificate: host[:port] or network (repeatable); loopback always may
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,

    /// Directory of hosts.toml and certificates per registry (repeatable) [default: /etc/berth/certs.d, /etc/docker/certs.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) registry_config_dir: Vec<PathBuf>,

    /// A registries.conf with mirrors, renamed and blocked registries
    #[arg(long, value_name = "FILE")]
    pub(crate) registries_conf: Option<PathBuf>,

    /// Seconds without a byte after which a registry counts as stalled
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) registry_timeout: u64,

    /// Log filter: error, warn, info, debug, trace, or per target
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,

    /// Log format
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,

    /// Serve metrics for Prometheus on this address, as http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// Let others than this host read the metrics; there is no password on them
    #[arg(long)]
    pub(crate) metrics_allow_remote: bool,

    /// Log driver of containers that name none
    #[arg(long, value_name = "DRIVER", default_value = "json-file", value_parser = ["json-file", "none"])]
    pub(crate) log_driver: String,

    /// Log option of containers that do not say otherwise, as max-size=10m or max-file=5; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) log_opt: Vec<String>,

    /// Resource limit of containers that do not say otherwise, as nofile=1024:2048; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) default_ulimit: Vec<String>,

    /// A runtime for --runtime NAME: NAME=PATH of an OCI runtime, or a table [runtimes.NAME] of the file; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) add_runtime: Vec<String>,

    /// Runtime of containers that name none [default: our own]
    #[arg(long, value_name = "NAME")]
    pub(crate) default_runtime: Option<String>,

    /// Give up every hold on the kernel (bridge, firewall table, sockets) on SIGTERM when no container runs
    #[arg(long)]
    pub(crate) private: bool,

    /// Control file of the fault points, for tests of crashes
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) fault_points: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum ConfigVerb {
    /// Print a configuration file with every key at its default
    Default,
    /// Print the values in force, and where each comes from
    Dump,
    /// Check a configuration file; nothing is started
    Validate {
        /// The file; without it the one the daemon would read
        file: Option<PathBuf>,
    },
    /// Print docs/configuration.md
    Reference,
}

/// What `berthd` does instead of being the engine.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// A registry of our own
    #[command(subcommand)]
    Registry(RegistryCommand),
}

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum RegistryCommand {
    /// Serve a registry until a signal comes
    Serve(RegistryServe),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryServe {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: std::net::SocketAddr,

    /// Directory of what it has
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth-registry")]
    pub(crate) store: PathBuf,

    /// Who may push: never, loopback, always
    #[arg(long, value_name = "WHO", default_value = "loopback", value_parser = ["never", "loopback", "always"])]
    pub(crate) push: String,
}

const EXAMPLES: &str = "\
Examples:
  berthd                                           the machine's engine
  berthd --root /tmp/b/root --state /tmp/b/state --bridge b0 --subnet 10.99.0.0/24 --nft-table b --cgroup-parent /b --private
                                                   a private instance; use it with berth -H unix:///tmp/b/state/docker.sock";

fn duration(text: &str) -> Result<Duration, String> {
    berth_types::timestamp::parse_duration(text).ok_or_else(|| "a duration is written 90m, 36h or 720h".to_owned())
}

fn proxy_snapshotter(text: &str) -> Result<ProxySettings, String> {
    ProxySettings::parse(text).map_err(|error| error.to_string())
}
