//! Settings below `/proc/sys/net`. They are those of the calling thread's network namespace.

use std::io::Write as _;
use std::path::Path;

use crate::error::NetworkError;

/// The value without its line end; `None` when the kernel has no such setting.
pub(crate) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// Writes a value.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), NetworkError> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| NetworkError::Sysctl { path: path.to_owned(), source })
}

/// Writes a value unless it is there already: a read-only `/proc/sys` with the right value is no obstacle.
pub(crate) fn ensure(path: &Path, value: &str) -> Result<(), NetworkError> {
    if read(path).as_deref() == Some(value) { Ok(()) } else { write(path, value) }
}

/// Whether this kernel speaks IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
