//! The API socket: handed over by systemd (sd_listen_fds(3)), else bound in place of a dead one, never of a live one.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SocketError {
    #[error("cannot make directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another daemon answers on {}; stop it, or choose another --state", .path.display())]
    InUse { path: PathBuf },
    #[error("cannot bind {}", .path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("cannot use the socket that systemd passed")]
    Passed(#[source] io::Error),
    #[error("cannot set owner and mode of {}", .path.display())]
    Permissions { path: PathBuf, source: io::Error },
}

/// Makes a directory with exactly this mode; an existing one is used as it is.
pub(crate) fn ensure_directory(path: &Path, mode: u32) -> Result<(), SocketError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| SocketError::Directory { path: path.to_owned(), source })
}

/// Binds `<state>/docker.sock`, mode 0660, in place of one that nobody answers on.
pub(crate) fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener, SocketError> {
    if is_served(path) {
        return Err(SocketError::InUse { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(SocketError::Bind { path: path.to_owned(), source }),
    }
    let listener = UnixListener::bind(path).map_err(|source| SocketError::Bind { path: path.to_owned(), source })?;
    let permissions = |source| SocketError::Permissions { path: path.to_owned(), source };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(permissions)?;
    std::os::unix::fs::chown(path, Some(0), Some(group.unwrap_or(0))).map_err(permissions)?;
    Ok(listener)
}

/// Whether the process that listened there lives. That a connection is made is no proof: a child of a killed daemon holds its sockets
/// until it executes its own program.
fn is_served(path: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(path) else { return false };
    let connected = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    // Of a listener in another PID namespace nothing is known.
    let listener = connected.and_then(|stream| stream.peer_cred()).ok().and_then(|peer| peer.pid());
    listener.is_none_or(|pid| pid == 0 || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok())
}

/// The listening socket that socket activation passed to this very process, if any.
pub(crate) fn passed() -> Result<Option<UnixListener>, SocketError> {
    let number = |name: &str| std::env::var_os(name).and_then(|text| text.to_str()?.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Ok(None);
    }
    let fd = berth_sys::inherited::take_first_passed().map_err(|errno| SocketError::Passed(errno.into()))?;
    let listener = std::os::unix::net::UnixListener::from(fd);
    listener.set_nonblocking(true).map_err(SocketError::Passed)?;
    UnixListener::from_std(listener).map(Some).map_err(SocketError::Passed)
}

/// Tells a service manager that waits for it that we are ready (sd_notify(3)); without one, nothing.
pub(crate) fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", &path));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell the service manager that the daemon is ready");
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SOCKET: &str = "BERTH_TEST_SOCKET";

    /// A listener that dies and leaves its socket to a child.
    #[test]
    #[ignore = "run by a_dead_daemons_socket_is_taken_over"]
    fn listener() {
        let path = std::env::var_os(SOCKET).expect("given by the outer test");
        let socket = std::os::unix::net::UnixListener::bind(path).unwrap();
        let child = Command::new("sleep").arg("1000").stdin(Stdio::from(std::os::fd::OwnedFd::from(socket))).spawn();
        println!("child {}.", child.unwrap().id());
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "socket::tests::listener", "--ignored", "--nocapture"]).env(SOCKET, &path);
        // Not its output's end is waited for, which the child holds too.
        let mut inner = inner.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(inner.stdout.take().unwrap()));
        let said = lines.find_map(|line| line.unwrap().split_once("child ").map(|(_, rest)| rest.to_owned())).unwrap();
        let holder: i32 = said.split('.').next().unwrap().parse().unwrap();
        inner.wait().unwrap();
        let answers = UnixStream::connect(&path).is_ok();
        let bound = bind(&path, None);
        rustix::process::kill_process(rustix::process::Pid::from_raw(holder).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        assert!(answers, "the child holds the socket");
        let listener = bound.unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::InUse { .. })), "a living one is kept");
        drop(listener);
        bind(&path, None).unwrap();
    }
}
