//! The command line, with runc's names. What is parsed is obeyed or refused, never ignored.

pub(crate) mod flag;
mod help;
mod parse;
mod table;

use std::path::PathBuf;

pub(crate) use parse::{Parsed, parse};

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) global: Global,
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Directory of container states; `None`: the default, which may not exist yet.
    pub(crate) root: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_format: LogFormat,
    pub(crate) debug: bool,
    pub(crate) systemd_cgroup: bool,
    /// `None`: as the caller's rights are.
    pub(crate) rootless: Option<bool>,
    pub(crate) criu: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug)]
pub(crate) enum Command {
    Create(CreateArguments),
    Start { id: String },
    Run(RunArguments),
    Exec(Box<ExecArguments>),
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    State { id: String },
    List { format: OutputFormat, quiet: bool },
    Ps { id: String, format: OutputFormat, options: Vec<String> },
    Pause { id: String },
    Resume { id: String },
    Update(Box<UpdateArguments>),
    Spec { bundle: Option<PathBuf>, rootless: bool },
    Features,
    Events { id: String, stats: bool, interval: std::time::Duration },
    Checkpoint(Box<CheckpointArguments>),
    Restore(Box<RestoreArguments>),
}

#[derive(Debug)]
pub(crate) struct CreateArguments {
    pub(crate) id: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
}

#[derive(Debug)]
pub(crate) struct RunArguments {
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) create: CreateArguments,
}

#[derive(Debug)]
pub(crate) struct ExecArguments {
    pub(crate) id: String,
    pub(crate) program: Vec<String>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) cwd: Option<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<String>,
    pub(crate) process: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) process_label: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privs: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) preserve_fds: u32,
    pub(crate) cgroups: Vec<String>,
    pub(crate) ignore_paused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Table,
    Json,
}

#[derive(Debug)]
pub(crate) struct UpdateArguments {
    pub(crate) id: String,
    pub(crate) resources: Option<PathBuf>,
    /// Integers and lists by the name of their flag, checked when they are used.
    pub(crate) given: flag::Given,
}

#[derive(Debug)]
pub(crate) struct CheckpointArguments {
    pub(crate) id: String,
    pub(crate) common: CriuArguments,
    pub(crate) parent_path: Option<PathBuf>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) page_server: Option<String>,
    pub(crate) status_fd: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct RestoreArguments {
    pub(crate) create: CreateArguments,
    pub(crate) common: CriuArguments,
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// What checkpoint and restore share.
#[derive(Debug)]
pub(crate) struct CriuArguments {
    pub(crate) image_path: Option<PathBuf>,
    pub(crate) work_path: Option<PathBuf>,
    pub(crate) switches: CriuSwitches,
    /// `soft`, `full`, `strict`, `ignore`.
    pub(crate) manage_cgroups: Option<String>,
    pub(crate) empty_namespaces: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of criu by its own name")]
pub(crate) struct CriuSwitches {
    pub(crate) tcp_established: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
}
