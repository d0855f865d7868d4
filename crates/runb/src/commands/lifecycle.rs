//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::path::Path;

use berth_runtime::{RuntimeError, StateDir, Status};
use berth_types::{Classify, ContainerId, ErrorClass, Signal};

use crate::arguments::{DeleteArguments, KillArguments};
use crate::error::CommandError;
use crate::log::Log;
use crate::paths;

pub(crate) fn start(root: &Path, id: &str, log: &Log) -> Result<(), CommandError> {
    let (mut container, _) = paths::container(root, id)?;
    let result = container.start(&mut Vec::new());
    for warning in &container.warnings {
        log.warn(warning);
    }
    Ok(result?)
}

pub(crate) fn kill(root: &Path, arguments: &KillArguments) -> Result<(), CommandError> {
    let signal: Signal = arguments.signal.parse()?;
    let (container, _) = paths::container(root, &arguments.id)?;
    if arguments.all {
        container.kill_all(signal)?
    } else {
        container.kill(signal)?
    }
    Ok(())
}

pub(crate) fn delete(root: &Path, arguments: &DeleteArguments) -> Result<(), CommandError> {
    let id: ContainerId = arguments.id.parse()?;
    let directory = match StateDir::open(root, &id) {
        Ok(directory) => directory,
        Err(error) if arguments.force && error.class() == ErrorClass::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let container = match paths::container(root, &arguments.id) {
        Ok((container, _)) => container,
        // Creation was interrupted: there is nothing but the directory.
        Err(CommandError::Runtime(error)) if error.class() == ErrorClass::FailedPrecondition && arguments.force => {
            return Ok(directory.remove()?);
        }
        Err(error) => return Err(error),
    };
    if !arguments.force && matches!(container.status(), Status::Running | Status::Paused) {
        let error =
            RuntimeError::State { state: container.status().text(), wanted: "stop it, or delete it with --force" };
        return Err(error.into());
    }
    Ok(container.delete()?)
}

pub(crate) fn pause(root: &Path, id: &str) -> Result<(), CommandError> {
    Ok(paths::container(root, id)?.0.pause()?)
}

pub(crate) fn resume(root: &Path, id: &str) -> Result<(), CommandError> {
    let (container, _) = paths::container(root, id)?;
    if container.status() != Status::Paused {
        let state = container.status().text();
        return Err(RuntimeError::State { state, wanted: "only a paused one can be resumed" }.into());
    }
    Ok(container.resume()?)
}
