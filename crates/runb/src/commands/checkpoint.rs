//! `checkpoint` and `restore`, where criu is installed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;
use berth_runtime::{Checkpoint, Container, CriuOptions, Meanwhile, RestoreOptions, Rootfs, StateDir};
use berth_types::{ContainerId, Timestamp};

use crate::arguments::{CheckpointArguments, CriuArguments, CriuSwitches, Global, RestoreArguments};
use crate::error::CommandError;
use crate::foreground::Signals;
use crate::socket::Receivers;
use crate::{paths, streams};

pub(crate) fn checkpoint(root: &Path, arguments: &CheckpointArguments, global: &Global) -> Result<u8, CommandError> {
    if arguments.page_server.is_some() || arguments.status_fd.is_some() {
        return Err(CommandError::NotYet("a page server (--page-server, --status-fd)"));
    }
    let container = paths::container(root, &arguments.id)?;
    let spec = paths::spec(container.bundle())?.document;
    let options = options(&arguments.common, global)?;
    let kind = match (arguments.pre_dump, arguments.leave_running) {
        (true, _) => Checkpoint::PreDump,
        (false, true) => Checkpoint::LeaveRunning,
        (false, false) => Checkpoint::Stop,
    };
    let parent = arguments.parent_path.as_deref().map(|path| parent_images(path, &options.images)).transpose()?;
    container.checkpoint(&spec, &options, kind, parent.as_deref())?;
    if kind == Checkpoint::Stop {
        container.delete()?;
    }
    Ok(0)
}

/// criu looks for it from the directory of the images.
fn parent_images(path: &Path, images: &Path) -> Result<String, CommandError> {
    let wrong = |why: &str| CommandError::Usage(format!("invalid --parent-path {}: {why}", path.display()));
    if path.is_absolute() {
        return Err(wrong("it counts from --image-path and must be relative"));
    }
    if !images.join(path).is_dir() {
        return Err(wrong("there is no such directory in --image-path"));
    }
    Ok(path.to_string_lossy().into_owned())
}

pub(crate) fn restore(root: &Path, arguments: &RestoreArguments, global: &Global) -> Result<u8, CommandError> {
    if arguments.lsm_profile.is_some() || arguments.lsm_mount_context.is_some() {
        return Err(CommandError::NotYet("another security profile (--lsm-profile, --lsm-mount-context)"));
    }
    if arguments.create.no_pivot {
        return Err(CommandError::NotYet("restoring with --no-pivot"));
    }
    if global.systemd_cgroup {
        return Err(CommandError::NotYet("restoring into a scope of systemd (--systemd-cgroup)"));
    }
    let options = options(&arguments.common, global)?;
    if !options.images.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(paths::file("open images", &options.images)(missing));
    }
    let id = ContainerId::of_runtime(&arguments.create.id)?;
    let bundle = paths::bundle(arguments.create.bundle.as_deref())?;
    let spec = paths::spec(&bundle)?.document;
    let terminal = spec.process().as_ref().and_then(berth_oci::runtime::Process::terminal).unwrap_or(false);
    streams::check_terminal(terminal, arguments.detach, arguments.create.console_socket.is_some())?;
    let receivers = Receivers::connect(arguments.create.console_socket.as_deref(), None)?;
    let signals = if arguments.detach { None } else { Some(Signals::hold()?) };
    let directory = StateDir::create(root, &id)?;
    let restore = RestoreOptions {
        scratch: directory.path(),
        rootfs: Rootfs::Bundle,
        stdio: None,
        meanwhile: Meanwhile::default(),
    };
    let restored =
        Container::restore(&spec, &id, &bundle, &options, restore).map_err(CommandError::from).and_then(|container| {
            let pid_file = arguments.create.pid_file.as_deref();
            keep(container, &directory, &spec, &bundle, &receivers, pid_file)
        });
    let mut container = match restored {
        Ok(container) => container,
        Err(error) => {
            // The first error is the one to report.
            let _also_failed = directory.remove();
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let code = signals.wait(&mut container.init);
    if !arguments.keep {
        container.delete()?;
    }
    code
}

/// Writes down what was restored; on a failure it is taken back.
fn keep(
    mut container: Container,
    directory: &StateDir,
    spec: &Spec,
    bundle: &Path,
    receivers: &Receivers,
    pid_file: Option<&Path>,
) -> Result<Container, CommandError> {
    let rootfs = spec.root().as_ref().map_or_else(PathBuf::new, |root| bundle.join(root.path()));
    let kept = container
        .save(directory, &rootfs, Timestamp::now())
        .map_err(CommandError::from)
        .and_then(|()| receivers.serve(&mut container.init))
        .and_then(|()| paths::write_pid(pid_file, container.init.pid));
    match kept {
        Ok(()) => Ok(container),
        Err(error) => {
            let _also_failed = container.delete();
            Err(error)
        }
    }
}

fn options(arguments: &CriuArguments, global: &Global) -> Result<CriuOptions, CommandError> {
    if arguments.switches.lazy_pages {
        return Err(CommandError::NotYet("lazy migration (--lazy-pages)"));
    }
    if !arguments.empty_namespaces.is_empty() {
        return Err(CommandError::NotYet("an empty namespace (--empty-ns)"));
    }
    if !matches!(arguments.manage_cgroups.as_deref(), None | Some("soft" | "ignore")) {
        return Err(CommandError::NotYet("leaving cgroups to criu (--manage-cgroups-mode full, strict)"));
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(paths::file("find", path));
    Ok(CriuOptions {
        program: program(&global.criu)?,
        images: absolute(arguments.image_path.as_deref().unwrap_or(Path::new("checkpoint")))?,
        work: arguments.work_path.as_deref().map(absolute).transpose()?,
        switches: switches(arguments.switches),
    })
}

fn switches(given: CriuSwitches) -> berth_runtime::CriuSwitches {
    berth_runtime::CriuSwitches {
        tcp_established: given.tcp_established,
        tcp_skip_in_flight: given.tcp_skip_in_flight,
        link_remap: given.link_remap,
        ext_unix_sk: given.ext_unix_sk,
        shell_job: given.shell_job,
        file_locks: given.file_locks,
        auto_dedup: given.auto_dedup,
    }
}

/// A name without a slash is looked for in `$PATH`.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are")]
fn program(given: &Path) -> Result<PathBuf, CommandError> {
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    let path = std::env::var("PATH").unwrap_or_default();
    let found = if given.components().count() > 1 {
        std::path::absolute(given).ok().filter(is_program)
    } else {
        path.split(':')
            .filter(|folder| folder.starts_with('/'))
            .map(|folder| Path::new(folder).join(given))
            .find(is_program)
    };
    let missing = || CommandError::State(format!("criu is not installed: there is no program {}", given.display()));
    found.ok_or_else(missing)
}
