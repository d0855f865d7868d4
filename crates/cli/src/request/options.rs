//! The flags of `run` and `create`, with Docker's spellings.

use clap::Args;

use super::limit::LimitOptions;

// No doc comment on flattened groups: clap would take it for the command's description.
#[derive(Debug, Default, Args)]
pub(crate) struct ContainerOptions {
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    #[command(flatten)]
    pub(crate) files: FileOptions,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
    #[command(flatten)]
    pub(crate) security: SecurityOptions,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    #[command(flatten)]
    pub(crate) more_limits: CreateLimitOptions,
    #[command(flatten)]
    pub(crate) object: ObjectOptions,
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"], help_heading = "Arguments")]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessOptions {
    /// Keep stdin open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Attach to stdin, stdout or stderr
    #[arg(short, long, value_name = "STREAM")]
    pub(crate) attach: Vec<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set an environment variable (KEY=VALUE, or KEY from here)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// User: name or uid[:group or gid]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Additional groups
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run an init that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds from the stop signal to the kill
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Ignore the image's health check
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileOptions {
    /// Bind a host path (SOURCE:TARGET[:ro])
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]")]
    pub(crate) volume: Vec<String>,
    /// Take the mounts of another container (NAME[:ro])
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) volumes_from: Vec<String>,
    /// Driver for named volumes; there is local
    #[arg(long, value_name = "DRIVER")]
    pub(crate) volume_driver: Option<String>,
    /// Mount (type=bind|tmpfs,source=...,target=...[,readonly])
    #[arg(long, value_name = "SPEC")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs (PATH[:size=64m,mode=755])
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Add a host device (HOST[:CONTAINER][:rwm])
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,
    /// Add a rule to the allowed devices ('c 10:229 rwm')
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkOptions {
    /// Network: bridge, none, host or container:NAME
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    /// Publish a port ([IP:][HOST:]CONTAINER[/udp])
    #[arg(short, long, value_name = "PORTS")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports on free ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Expose a port or a range
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// NIS domain name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Add a line to /etc/hosts (NAME:IP)
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Isolation")]
pub(crate) struct SecurityOptions {
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// All capabilities, all devices, no filters
    #[arg(long)]
    pub(crate) privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// IPC namespace: none, private, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// UTS namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// cgroup namespace: host, private or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<String>,
    /// User namespace: host, private, auto or map
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// Kernel parameter in the container's namespaces (KEY=VALUE)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Runtime to use
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct CreateLimitOptions {
    /// How readily memory is swapped, 0 to 100
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Do not kill on out of memory
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Preference of the host's OOM killer, -1000 to 1000
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i64>,
    /// Resource limit of processes (nofile=1024:2048)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Parent cgroup
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Block I/O weight of one device (/dev/sda:500)
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    pub(crate) blkio_weight_device: Vec<String>,
    /// Read limit of one device, bytes per second (/dev/sda:1mb)
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_bps: Vec<String>,
    /// Write limit of one device, bytes per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_bps: Vec<String>,
    /// Read limit of one device, operations per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_iops: Vec<String>,
    /// Write limit of one device, operations per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_iops: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Container")]
pub(crate) struct ObjectOptions {
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label (KEY=VALUE)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<String>,
    /// Annotation for the OCI runtime (KEY=VALUE)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Restart policy: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Log driver
    #[arg(long, value_name = "NAME")]
    pub(crate) log_driver: Option<String>,
    /// Log option (max-size=10m)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) log_opt: Vec<String>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<String>,
    /// Pull policy: always, missing or never
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub(crate) pull: String,
    /// Platform, os/arch
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Say nothing of pulling
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print the timeline on stderr: text, json, chrome or otlp; or send it to :FILE or otlp:URL
    #[arg(long, value_name = "FORM[:TARGET]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) trace: Option<String>,
    /// Print the steps and their reasons; create nothing: text or json
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) plan: Option<String>,
}
