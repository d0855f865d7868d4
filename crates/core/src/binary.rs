//! A sealed copy of the shim's binary in memory, made once per daemon and executed from there: nobody can change it, and replacing the
//! file on disk during an upgrade does not mix versions.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::{Classify, ErrorClass};
use rustix::fs::{MemfdFlags, SealFlags};

/// An executable that can no longer be written, grown or shrunk.
#[derive(Debug)]
pub struct SealedBinary {
    fd: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    #[error("cannot read the shim binary {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make a sealed copy of the shim binary")]
    Seal { source: io::Error },
}

impl Classify for BinaryError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            _ => ErrorClass::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::Read { .. })
            .then(|| "containerd-shim-berth-v1 must lie beside berthd or be named with --shim".to_owned())
    }
}

impl SealedBinary {
    /// Copies and seals a binary from disk.
    ///
    /// # Errors
    /// `NotFound` when there is no such file; `Internal` when the kernel refuses the copy.
    pub fn copy(path: &Path) -> Result<Self, BinaryError> {
        let read = |source| BinaryError::Read { path: path.to_owned(), source };
        let seal = |source| BinaryError::Seal { source };
        let mut source = File::open(path).map_err(read)?;
        let fd = memfd().map_err(|errno| seal(errno.into()))?;
        let mut copy = File::from(fd);
        io::copy(&mut source, &mut copy).map_err(seal)?;
        copy.flush().map_err(seal)?;
        let fd = OwnedFd::from(copy);
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(|errno| seal(errno.into()))?;
        Ok(Self { fd })
    }

    /// The path by which a child of this process executes it; the descriptor is close-on-exec and does not leak.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// `MFD_EXEC` exists since Linux 6.3; before, every memfd is executable and the flag is EINVAL.
fn memfd() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("berth-shim", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("berth-shim", flags),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2019-5736: the bytes that are executed cannot be changed by anybody.
    #[test]
    fn copy_is_executable_and_sealed() {
        let sealed = SealedBinary::copy(Path::new("/bin/true")).unwrap();
        assert!(std::process::Command::new(sealed.path()).status().unwrap().success());
        let denied = std::fs::OpenOptions::new().write(true).open(sealed.path()).and_then(|mut f| f.write_all(b"x"));
        assert!(denied.is_err());
    }

    #[test]
    fn missing_binary_is_named() {
        let error = SealedBinary::copy(Path::new("/nowhere/shim")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotFound);
        assert_eq!(error.to_string(), "cannot read the shim binary /nowhere/shim");
    }
}
