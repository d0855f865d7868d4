//! The API socket on disk: bound in place of a dead one, never of a live one.

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
    if UnixStream::connect(path).is_ok() {
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
