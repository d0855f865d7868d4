//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::path::Path;

use berth_runtime::{RuntimeError, StateDir, Status};
use berth_types::{Classify, ContainerId, ErrorClass, Signal};

use crate::error::CommandError;
use crate::log::Log;
use crate::{notify, paths};

fn refused(text: &str) -> CommandError {
    CommandError::State(text.to_owned())
}

pub(crate) fn start(root: &Path, id: &str, log: &Log) -> Result<(), CommandError> {
    let mut container = paths::container(root, id)?;
    match container.status() {
        Status::Running => return Err(refused("cannot start an already running container")),
        Status::Stopped => return Err(refused("cannot start a container that has stopped")),
        _ => {}
    }
    let socket = notify::listen(&StateDir::open(root, &ContainerId::of_runtime(id)?)?)?;
    let mut spans = Vec::new();
    let result = container.start(&mut spans);
    log.steps(&spans);
    container.warnings.iter().for_each(|warning| log.warn(warning));
    result?;
    notify::forward(socket.as_ref(), &container)
}

pub(crate) fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<(), CommandError> {
    // kill(2): 0 sends nothing and only looks.
    let signal: Option<Signal> = if signal == "0" { None } else { Some(signal.parse()?) };
    let container = paths::container(root, id)?;
    let is_stopped = container.status() == Status::Stopped;
    // Without a PID namespace of its own, its other processes outlive init.
    let outlives = !container.has_own_pids() && !container.pids()?.is_empty();
    match signal {
        _ if is_stopped && !all && !(outlives && signal == Some(Signal::KILL)) => Err(refused("container not running")),
        None => Ok(()),
        Some(signal) if all || (signal == Signal::KILL && outlives) => Ok(container.kill_all(signal)?),
        Some(signal) => match container.kill(signal) {
            Err(RuntimeError::State { .. }) => Err(refused("container not running")),
            other => Ok(other?),
        },
    }
}

pub(crate) fn delete(root: &Path, id: &str, force: bool, log: &Log) -> Result<(), CommandError> {
    let parsed = ContainerId::of_runtime(id)?;
    let directory = match StateDir::open(root, &parsed) {
        Ok(directory) => directory,
        Err(error) if force && error.class() == ErrorClass::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let container = match paths::container(root, id) {
        Ok(container) => container,
        // Creation was interrupted: there is nothing but the directory.
        Err(error) if error.class() == ErrorClass::FailedPrecondition => {
            directory.remove()?;
            return if force { Ok(()) } else { Err(error) };
        }
        Err(error) => return Err(error),
    };
    let status = container.status();
    if !force && matches!(status, Status::Running | Status::Paused) {
        return Err(refused(&format!("cannot delete container {id} that is not stopped: {}", status.text())));
    }
    container.delete_reporting()?.iter().for_each(|warning| log.warn(warning));
    Ok(())
}

pub(crate) fn pause(root: &Path, id: &str) -> Result<(), CommandError> {
    let container = paths::container(root, id)?;
    match container.status() {
        Status::Stopped => Err(refused("container not running")),
        Status::Paused => Err(refused("container already paused")),
        _ => Ok(container.pause()?),
    }
}

pub(crate) fn resume(root: &Path, id: &str) -> Result<(), CommandError> {
    let container = paths::container(root, id)?;
    match container.status() {
        Status::Stopped => Err(refused("container not running")),
        Status::Paused => Ok(container.resume()?),
        _ => Err(refused("container not paused")),
    }
}
