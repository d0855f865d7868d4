//! `create` and `run`.

use std::path::{Path, PathBuf};

use berth_oci::runtime::{LinuxSeccompAction, LinuxSyscall, Spec};
use berth_runtime::{
    CgroupDriver, Container, CreateOptions, NotifySocket, Rights, Rootfs, StateDir, Stdio, SystemdInstance, Tuning,
};
use berth_types::{ContainerId, Span, Timestamp};

use crate::arguments::{CreateArguments, Global, RunArguments};
use crate::error::CommandError;
use crate::foreground::Signals;
use crate::log::Log;
use crate::socket::Receivers;
use crate::{notify, paths, seal, streams};

pub(crate) fn create(root: &Path, arguments: &CreateArguments, global: &Global, log: &Log) -> Result<(), CommandError> {
    make(root, arguments, true, global, log).map(drop)
}

/// What is to be made, read and checked before anything is.
struct Making<'a> {
    arguments: &'a CreateArguments,
    bundle: PathBuf,
    spec: Spec,
    stdio: Stdio,
    preserve_fds: u32,
    receivers: Receivers,
    global: &'a Global,
    root: &'a Path,
}

/// Takes the id, creates, and writes the state down; everything is given back when something fails.
fn make(
    root: &Path,
    arguments: &CreateArguments,
    detach: bool,
    global: &Global,
    log: &Log,
) -> Result<Container, CommandError> {
    let preserve_fds = streams::preserved(arguments.preserve_fds, listen_fds())?;
    let id = ContainerId::of_runtime(&arguments.id)?;
    let bundle = paths::bundle(arguments.bundle.as_deref())?;
    let berth_oci::document::Parsed { document: mut spec, warnings } = paths::spec(&bundle)?;
    check_notified(&spec)?;
    seal::enter_only_sealed(seal::maps_of(&spec).as_deref(), log)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    pass_listen_fds(&mut spec);
    let process = spec.process().as_ref();
    let terminal = process.and_then(berth_oci::runtime::Process::terminal).unwrap_or(false);
    streams::check_terminal(terminal, detach, arguments.console_socket.is_some())?;
    let stdio = match process.filter(|_| terminal) {
        Some(process) => streams::terminal(process.console_size().as_ref(), !detach),
        None => streams::inherited()?,
    };
    let receivers = Receivers::connect(arguments.console_socket.as_deref(), arguments.pidfd_socket.as_deref())?;
    let directory = StateDir::create(root, &id)?;
    let making = Making { arguments, bundle, spec, stdio, preserve_fds, receivers, global, root };
    let mut spans = Vec::new();
    let made = making.make_in(&directory, &mut spans);
    log.steps(&spans);
    match made {
        Ok(container) => {
            if let Some(flags) = container.seccomp_flags() {
                log.debug(|| format!("seccomp filter flags: {flags}"));
            }
            container.warnings.iter().for_each(|warning| log.warn(warning));
            Ok(container)
        }
        Err(error) => {
            // The first error is the one to report.
            let _also_failed = directory.remove();
            Err(error)
        }
    }
}

impl Making<'_> {
    fn make_in(mut self, directory: &StateDir, spans: &mut Vec<Span>) -> Result<Container, CommandError> {
        notify::prepare(directory, &mut self.spec)?;
        let tuning = Tuning {
            keep_keyring: self.arguments.no_new_keyring,
            no_pivot: self.arguments.no_pivot,
            preserve_fds: self.preserve_fds,
            start_listener: Some(directory.start_listener()?),
            cgroup_driver: cgroup_driver(self.global),
            finds_program: true,
            rights: rights(),
            may_lack_cgroup: self.global.rootless.unwrap_or(rights() != Rights::Full),
            seccomp_cache: Some(self.root.join(".seccomp")),
            ..Tuning::default()
        };
        let rootfs = self.spec.root().as_ref().map_or_else(PathBuf::new, |root| self.bundle.join(root.path()));
        let options = CreateOptions {
            id: directory.id().clone(),
            bundle: self.bundle,
            rootfs: Rootfs::Bundle,
            stdio: self.stdio,
            seccomp_program: None,
            tuning,
        };
        let mut container = Container::create(&self.spec, options, spans)?;
        let finished = container
            .save(directory, &rootfs, Timestamp::now())
            .map_err(CommandError::from)
            .and_then(|()| self.receivers.serve(&mut container.init))
            .and_then(|()| paths::write_pid(self.arguments.pid_file.as_deref(), container.init.pid));
        match finished {
            Ok(()) => Ok(container),
            Err(error) => {
                let _also_failed = container.delete();
                Err(error)
            }
        }
    }
}

/// runc has no way to have `write` answered before its agent listens, so its configurations never ask for it, and one that does is a
/// mistake. The runtime itself could.
fn check_notified(spec: &Spec) -> Result<(), CommandError> {
    let rules =
        spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()).and_then(|own| own.syscalls().as_ref());
    let is_notified = |rule: &LinuxSyscall| {
        rule.action() == LinuxSeccompAction::ScmpActNotify && rule.names().iter().any(|name| name == "write")
    };
    if rules.into_iter().flatten().any(is_notified) {
        return Err(CommandError::State("SCMP_ACT_NOTIFY cannot be used for the write syscall".to_owned()));
    }
    Ok(())
}

/// Root in somebody's user namespace sees other ids than root on the host.
fn rights() -> Rights {
    let is_whole = |map: &str| map.split_whitespace().eq(["0", "0", "4294967295"]);
    match rustix::process::geteuid().is_root() {
        false => Rights::Ordinary,
        true if std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_whole(&map)) => Rights::Full,
        true => Rights::UserNamespaceRoot,
    }
}

/// `--systemd-cgroup`: the machine's systemd for root, else the user's own.
#[expect(clippy::disallowed_methods, reason = "XDG_RUNTIME_DIR is how a user's systemd is found")]
fn cgroup_driver(global: &Global) -> CgroupDriver {
    let uid = rustix::process::geteuid();
    match (global.systemd_cgroup, uid.is_root() && global.rootless != Some(true)) {
        (false, _) => CgroupDriver::Cgroupfs,
        (true, true) => CgroupDriver::Systemd(SystemdInstance::System),
        (true, false) => {
            let own = |_| format!("/run/user/{}", uid.as_raw());
            let runtime_dir = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(own);
            CgroupDriver::Systemd(SystemdInstance::User { runtime_dir: runtime_dir.into() })
        }
    }
}

/// systemd's socket activation: our descriptors are the container's.
#[expect(clippy::disallowed_methods, reason = "LISTEN_FDS is how socket activation is passed")]
fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).filter(|count| *count <= 1024).unwrap_or(0)
}

fn pass_listen_fds(spec: &mut Spec) {
    let count = listen_fds();
    if count > 0
        && let Some(process) = spec.process_mut()
    {
        let environment = process.env_mut().get_or_insert_default();
        environment.push(format!("LISTEN_FDS={count}"));
        environment.push("LISTEN_PID=1".to_owned());
    }
}

pub(crate) fn run(root: &Path, arguments: &RunArguments, global: &Global, log: &Log) -> Result<u8, CommandError> {
    let signals = if arguments.detach { None } else { Some(Signals::hold()?) };
    let mut container = make(root, &arguments.create, arguments.detach, global, log)?;
    let mut spans = Vec::new();
    let begun = begin(root, &mut container, &mut spans);
    log.steps(&spans);
    let socket = match begun {
        Ok(socket) => socket,
        Err(error) => {
            let _also_failed = container.delete();
            return Err(error);
        }
    };
    container.warnings.iter().for_each(|warning| log.warn(warning));
    let Some(signals) = signals else {
        notify::forward(socket.as_ref(), &container)?;
        return Ok(0);
    };
    notify::forward_aside(socket.as_ref(), &container, log);
    let code = signals.wait(&mut container.init);
    if !arguments.keep {
        container.delete_reporting()?.iter().for_each(|warning| log.warn(warning));
    }
    code
}

/// Starts it, with its notify socket open where it has one.
fn begin(root: &Path, container: &mut Container, spans: &mut Vec<Span>) -> Result<Option<NotifySocket>, CommandError> {
    let id = ContainerId::of_runtime(&container.state().id)?;
    let socket = notify::listen(&StateDir::open(root, &id)?)?;
    container.start(spans)?;
    Ok(socket)
}
