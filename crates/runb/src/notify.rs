//! `NOTIFY_SOCKET`: when systemd runs us as a service that notifies, the container's word that it is ready goes on to it.

use std::os::fd::AsFd;

use berth_oci::runtime::Spec;
use berth_runtime::{Container, NotifyDir, NotifySocket, StateDir};
use berth_sys::clone::{CloneArgs, clone_child};

use crate::error::CommandError;
use crate::log::Log;

#[expect(clippy::disallowed_methods, reason = "NOTIFY_SOCKET is how systemd names the socket")]
fn host() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty())
}

/// Before creation: the container gets a socket of its own.
pub(crate) fn prepare(directory: &StateDir, spec: &mut Spec) -> Result<(), CommandError> {
    if host().is_some() {
        NotifyDir::create(directory, spec)?;
    }
    Ok(())
}

/// Before start: the socket is there before the program is.
pub(crate) fn listen(directory: &StateDir) -> Result<Option<NotifySocket>, CommandError> {
    match (host(), NotifyDir::open(directory)) {
        (Some(_), Some(found)) => Ok(Some(found.listen()?)),
        _ => Ok(None),
    }
}

/// After start: waits until the container is ready or gone.
pub(crate) fn forward(socket: Option<&NotifySocket>, container: &Container) -> Result<(), CommandError> {
    match (socket, host()) {
        (Some(socket), Some(host)) => Ok(socket.forward(&host, container.init.pid, container.init.pidfd.as_fd())?),
        _ => Ok(()),
    }
}

/// The same by a process of its own, for a foreground that has other things to do.
pub(crate) fn forward_aside(socket: Option<&NotifySocket>, container: &Container, log: &Log) {
    if socket.is_none() {
        return;
    }
    let told = clone_child(&CloneArgs::default(), || u8::from(forward(socket, container).is_err()));
    if told.is_err() {
        log.warn("nobody is there to pass the container's readiness on");
    }
}
