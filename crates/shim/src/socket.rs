//! The shim's sockets: paths in a private directory, never abstract names (CVE-2020-15257), and only callers of our own user.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

use crate::ShimError;

/// Where sockets are made when the caller names no directory.
const DEFAULT_DIR: &str = "/run/berth/s";

/// A short path for one task's socket: addresses are limited to 107 bytes, ids and namespaces are not.
pub(crate) fn path_for(dir: Option<&str>, namespace: &str, id: &str, caller: &str) -> PathBuf {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, caller, namespace, id).hash(&mut hasher);
        hasher.finish()
    };
    Path::new(dir.unwrap_or(DEFAULT_DIR)).join(format!("{:016x}{:016x}", half(0), half(1)))
}

/// Makes the directory (0700) if need be and listens. A socket left by a dead shim is replaced, one of a living shim is not.
///
/// # Errors
/// `AlreadyExists`, `PermissionDenied` for a directory that is not ours alone, else what the kernel refused.
pub(crate) fn listen(path: &Path) -> Result<StdListener, ShimError> {
    let failed = |what| move |source| ShimError::File { what, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make the directory of"))?;
        let meta = std::fs::symlink_metadata(dir).map_err(failed("look at the directory of"))?;
        let is_ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
        if !is_ours {
            return Err(ShimError::SocketDir { path: dir.to_owned() });
        }
    }
    match bind_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if StdStream::connect(path).is_ok() {
                return Err(ShimError::AlreadyListening { path: path.to_owned() });
            }
            std::fs::remove_file(path).map_err(failed("replace"))?;
            bind_private(path).map_err(failed("bind"))
        }
        other => other.map_err(failed("bind")),
    }
}

/// Binds `name` in a directory whose path may be longer than an address can be.
pub(crate) fn listen_in(dir: &Path, name: &str) -> io::Result<StdListener> {
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => bind_private(&path),
    }
}

/// Mode 0600 from the first instant: the process has one thread, so nobody else sees the mask.
fn bind_private(path: &Path) -> io::Result<StdListener> {
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = StdListener::bind(path);
    rustix::process::umask(before);
    listener
}

/// The next connection of root or of our own user; others are closed and not counted as an error.
pub(crate) async fn accept_trusted(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let uid = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        if uid.is_root() || uid == rustix::process::geteuid() {
            return Ok(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::{Classify, ErrorClass};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn paths_are_short_and_differ() {
        let long = "x".repeat(250);
        let path = path_for(None, "default", &long, "/run/c.sock");
        assert!(path.as_os_str().len() < 60);
        assert_ne!(path, path_for(None, "default", &long[1..], "/run/c.sock"));
        assert_ne!(path, path_for(None, "other", &long, "/run/c.sock"));
    }

    #[test]
    fn a_dead_socket_is_replaced_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s/sock");
        let first = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(listen(&path).unwrap_err().class(), ErrorClass::AlreadyExists);
        drop(first);
        // A child of another test, between fork and exec, has the descriptor for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = listen(&path) {
            assert_eq!(error.class(), ErrorClass::AlreadyExists, "{error}");
            assert!(std::time::Instant::now() < deadline, "{error}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_open_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(listen(&dir.path().join("sock")).unwrap_err().class(), ErrorClass::PermissionDenied);
    }
}
