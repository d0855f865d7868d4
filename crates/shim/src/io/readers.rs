//! Whether anybody but this shim has a FIFO open. The kernel does not tell who holds our own both ends.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Looks through the descriptors of all processes (proc(5)): milliseconds on a large host. Processes that we may not look into are taken for none.
pub(crate) fn is_open_elsewhere(fifo: &OwnedFd) -> bool {
    let link = PathBuf::from(format!("/proc/self/fd/{}", fifo.as_raw_fd()));
    let (Ok(own), Some(name)) = (rustix::fs::fstat(fifo), file_name(&link)) else { return false };
    let myself = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let others = processes.flatten().filter(|process| {
        let id = process.file_name();
        id.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) && id != myself.as_str()
    });
    let is_it = |file: fs::Metadata| file.dev() == own.st_dev && file.ino() == own.st_ino;
    others.into_iter().any(|process| {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { return false };
        // Only what has its name is asked for more: a question to somebody's dead file server would never be answered.
        let namesakes = descriptors.flatten().map(|d| d.path()).filter(|d| file_name(d).as_ref() == Some(&name));
        namesakes.into_iter().any(|descriptor| fs::metadata(descriptor).is_ok_and(is_it))
    })
}

/// Of what a link in `/proc/<pid>/fd` leads to.
fn file_name(link: &Path) -> Option<OsString> {
    fs::read_link(link).ok()?.file_name().map(OsString::from)
}
