//! The command line, with runc's names. What is parsed is obeyed or refused, never ignored.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "runb", version, about = "Runs containers as the OCI runtime specification says")]
pub(crate) struct Arguments {
    /// Directory of container states
    #[arg(long, global = true, default_value = "/run/runb")]
    pub(crate) root: PathBuf,
    /// Append log lines to this file instead of writing errors to stderr only
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log what is done, too
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Ask systemd for the cgroup (not possible yet)
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container, its program waiting for start
    Create(CreateArguments),
    /// Start the program of a created container
    Start { id: String },
    /// Create and start, and wait for the end unless detached
    Run(RunArguments),
    /// Run a further program in a running container
    Exec(ExecArguments),
    /// Send a signal to the container's first process
    Kill(KillArguments),
    /// Remove a stopped container
    Delete(DeleteArguments),
    /// Print the state of a container
    State { id: String },
    /// List containers
    List(ListArguments),
    /// Show the processes of a container
    Ps(PsArguments),
    /// Freeze all processes of a container
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Change the limits of a container
    Update(Box<UpdateArguments>),
    /// Write a config.json to start from
    Spec {
        #[arg(long, short)]
        bundle: Option<PathBuf>,
    },
    /// Print what this runtime can do
    Features,
    /// Print resource use, once or again and again
    Events(EventsArguments),
    /// Save a container's processes (not possible yet)
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Restore saved processes (not possible yet)
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Directory with config.json; the working directory if not given
    #[arg(long, short)]
    pub(crate) bundle: Option<PathBuf>,
    /// Unix socket to which the terminal's master is sent
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File for the process id
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not use pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Stay in the session keyring of the caller
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many further descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Leave the container running
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Do not remove the container when it ends
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted for compatibility: this runtime never becomes a subreaper
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    #[command(flatten)]
    pub(crate) create: CreateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    #[arg(long, short)]
    pub(crate) env: Vec<String>,
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// UID[:GID]
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    #[arg(long, short = 'g')]
    pub(crate) additional_gids: Vec<u32>,
    /// process.json to use instead of the other flags
    #[arg(long, short)]
    pub(crate) process: Option<PathBuf>,
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    #[arg(long)]
    pub(crate) process_label: Option<String>,
    #[arg(long)]
    pub(crate) apparmor: Option<String>,
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    #[arg(long, short)]
    pub(crate) cap: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    pub(crate) id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArguments {
    /// Every process of the container
    #[arg(long, short)]
    pub(crate) all: bool,
    pub(crate) id: String,
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// Kill it first if it runs
    #[arg(long, short)]
    pub(crate) force: bool,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: OutputFormat,
    /// Ids only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArguments {
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: OutputFormat,
    pub(crate) id: String,
    /// Options for ps(1); -ef if none are given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Once, instead of at intervals
    #[arg(long)]
    pub(crate) stats: bool,
    /// Seconds between lines
    #[arg(long, default_value = "5s")]
    pub(crate) interval: String,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// File with LinuxResources as JSON, - for stdin; instead of the other flags
    #[arg(long, short)]
    pub(crate) resources: Option<PathBuf>,
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    #[arg(long)]
    pub(crate) cpu_burst: Option<u64>,
    #[arg(long, alias = "cpu-share")]
    pub(crate) cpu_shares: Option<u64>,
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<i64>,
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes, with a suffix k, m, g; -1 for unlimited
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    pub(crate) id: String,
}
