//! `create` and `run`.

use std::path::Path;

use berth_oci::runtime::Spec;
use berth_runtime::{Container, CreateOptions, Rootfs, StateDir, Stdio, Tuning};
use berth_types::{ContainerId, Timestamp};

use crate::arguments::{CreateArguments, RunArguments};
use crate::error::CommandError;
use crate::log::Log;
use crate::{console, foreground, paths, streams};

pub(crate) fn create(root: &Path, arguments: &CreateArguments, log: &Log) -> Result<(), CommandError> {
    make(root, arguments, true, log).map(drop)
}

/// Takes the id, creates, and writes the state down; everything is given back when something fails.
fn make(root: &Path, arguments: &CreateArguments, is_detached: bool, log: &Log) -> Result<Container, CommandError> {
    let preserve_fds = streams::preserved(arguments.preserve_fds, listen_fds())?;
    let id: ContainerId = arguments.id.parse()?;
    let bundle = paths::bundle(arguments.bundle.as_deref())?;
    let mut spec = paths::spec(&bundle)?;
    pass_listen_fds(&mut spec);
    let stdio = stdio(&spec, arguments.console_socket.as_deref(), is_detached)?;
    let directory = StateDir::create(root, &id)?;
    let made = make_in(&directory, arguments, bundle, &spec, stdio, preserve_fds);
    match made {
        Ok(container) => {
            for warning in &container.warnings {
                log.warn(warning);
            }
            Ok(container)
        }
        Err(error) => {
            // The first error is the one to report.
            let _also_failed = directory.remove();
            Err(error)
        }
    }
}

fn make_in(
    directory: &StateDir,
    arguments: &CreateArguments,
    bundle: std::path::PathBuf,
    spec: &Spec,
    stdio: Stdio,
    preserve_fds: u32,
) -> Result<Container, CommandError> {
    let tuning = Tuning {
        keep_keyring: arguments.no_new_keyring,
        no_pivot: arguments.no_pivot,
        preserve_fds,
        start_listener: Some(directory.start_listener()?),
        fault: None,
    };
    let id = directory.id().clone();
    let options = CreateOptions { id, bundle, rootfs: Rootfs::Bundle, stdio, seccomp_program: None, tuning };
    let mut container = Container::create(spec, options, &mut Vec::new())?;
    let created = u64::try_from(Timestamp::now().unix_seconds()).unwrap_or(0);
    let finished = container
        .save(directory, created)
        .map_err(CommandError::from)
        .and_then(|()| hand_over(&container, arguments.console_socket.as_deref()))
        .and_then(|()| paths::write_pid(arguments.pid_file.as_deref(), container.init.pid));
    match finished {
        Ok(()) => Ok(container),
        Err(error) => {
            let _also_failed = container.delete();
            Err(error)
        }
    }
}

fn hand_over(container: &Container, socket: Option<&Path>) -> Result<(), CommandError> {
    match (socket, &container.init.console) {
        (Some(socket), Some(master)) => console::send_master(socket, master),
        _ => Ok(()),
    }
}

fn stdio(spec: &Spec, socket: Option<&Path>, is_detached: bool) -> Result<Stdio, CommandError> {
    let process = spec.process().as_ref();
    let wants_terminal = process.and_then(berth_oci::runtime::Process::terminal).unwrap_or(false);
    match (wants_terminal, socket.is_some(), is_detached) {
        (true, false, true) => {
            Err(CommandError::Usage("a terminal without --console-socket needs the foreground".to_owned()))
        }
        (false, true, _) => {
            Err(CommandError::Usage("--console-socket is given but process.terminal is not set".to_owned()))
        }
        (true, _, _) => {
            let number = |value: u64| u16::try_from(value).unwrap_or(0);
            let size = process.and_then(|process| process.console_size());
            Ok(streams::terminal(size.map(|size| (number(size.height()), number(size.width())))))
        }
        (false, ..) => streams::inherited(),
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

pub(crate) fn run(root: &Path, arguments: &RunArguments, log: &Log) -> Result<u8, CommandError> {
    if !arguments.detach {
        foreground::hold_signals()?;
    }
    let mut container = make(root, &arguments.create, arguments.detach, log)?;
    let started = container.start(&mut Vec::new());
    if let Err(error) = started {
        let _also_failed = container.delete();
        return Err(error.into());
    }
    for warning in &container.warnings {
        log.warn(warning);
    }
    if arguments.detach {
        return Ok(0);
    }
    if arguments.create.console_socket.is_some() {
        // Somebody else reads it.
        container.init.console = None;
    }
    let code = foreground::wait(&mut container.init);
    if !arguments.keep {
        container.delete()?;
    }
    code
}
