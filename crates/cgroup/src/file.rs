//! Kernel files: small, read and written in one go, relative to an open directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::CgroupError;

/// The most we read from one kernel file; a list of a million processes fits.
const LENGTH_MAX: usize = 16 << 20;

/// A directory of one hierarchy.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn open(path: PathBuf) -> Result<Self, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        Ok(Self { fd: openat(CWD, &path, flags, Mode::empty())?, path })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        rustix::fs::accessat(&self.fd, name, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    pub(crate) fn open_write(&self, name: &str) -> Result<OwnedFd, Errno> {
        openat(&self.fd, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Writes in one call, which kernel files demand.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<(), Errno> {
        write_once(self.open_write(name)?, value)
    }

    /// The file's text.
    pub(crate) fn read(&self, name: &str) -> Result<String, CgroupError> {
        read_at(&self.fd, Path::new(name)).map_err(|source| CgroupError::Read { file: self.file(name), source })
    }

    /// The file's text, `None` where the kernel has no such file (or, for some, no such feature switched on).
    pub(crate) fn read_optional(&self, name: &str) -> Result<Option<String>, CgroupError> {
        match read_at(&self.fd, Path::new(name)) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(source) => Err(CgroupError::Read { file: self.file(name), source }),
        }
    }

    /// A file that holds one number.
    pub(crate) fn read_number(&self, name: &str) -> Result<u64, CgroupError> {
        let text = self.read(name)?;
        text.trim().parse().map_err(|_| self.parse_error(name, &text))
    }

    pub(crate) fn parse_error(&self, name: &str, text: &str) -> CgroupError {
        CgroupError::Parse { file: self.file(name), text: text.chars().take(80).collect() }
    }
}

pub(crate) fn write_once(fd: impl AsFd, value: &str) -> Result<(), Errno> {
    loop {
        match rustix::io::write(&fd, value.as_bytes()) {
            Ok(written) if written == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

pub(crate) fn read_path(path: &Path) -> Result<String, CgroupError> {
    read_at(CWD, path).map_err(|source| CgroupError::Read { file: path.to_owned(), source })
}

fn read_at(directory: impl AsFd, path: &Path) -> Result<String, Errno> {
    let fd = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) if bytes.len() > LENGTH_MAX => return Err(Errno::FBIG),
            Ok(_) => bytes.reserve(4096),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // Cgroup and mount names are bytes; a name that is not text cannot be one of ours.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
