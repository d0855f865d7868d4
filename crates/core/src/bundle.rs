//! Bundles: one directory per task below the state root, written by us, read by the shim.
//!
//! ```text
//! <state>/tasks/<id>/   0700
//!   config.json         the OCI spec
//!   address             the shim's socket (written by the shim)
//!   io.sock             attach socket (the shim's)
//!   trace.json          spans of the start, when asked for (the shim's)
//!   trace-<exec>.json   spans of an exec, likewise (made empty by the engine, filled by the shim)
//!   exit.json           the signal that ended init, if one did (the shim's)
//!   hostname hosts resolv.conf   files shown inside the container (the engine's)
//! ```

use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_types::span::exec_trace_file;
use berth_types::{Classify, ContainerId, ErrorClass, ExecId, ExitNote, Span, exit_note};

/// Longest trace we read back; a start has some hundred spans of about 150 bytes.
const TRACE_BYTES_MAX: u64 = 1 << 20;

/// A task's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} bundle file {}", .path.display())]
pub struct BundleError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Classify for BundleError {
    fn class(&self) -> ErrorClass {
        match self.source.kind() {
            io::ErrorKind::NotFound => ErrorClass::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::ResourceExhausted,
            _ => ErrorClass::Internal,
        }
    }
}

impl Bundle {
    /// The bundle of a task, whether it exists or not.
    pub fn of(tasks_dir: &Path, id: &ContainerId) -> Self {
        Self { path: tasks_dir.join(id.as_str()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the empty directory, replacing what an earlier run of the same task left.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(&self) -> Result<(), BundleError> {
        let make = || std::fs::DirBuilder::new().mode(0o700).create(&self.path);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                make()
            }
            other => other,
        };
        made.map_err(|source| BundleError { operation: "create", path: self.path.clone(), source })
    }

    /// Writes a small file of the bundle with the given mode. The directory is private, so no temporary name is needed.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), BundleError> {
        use std::io::Write as _;
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        let path = self.file(name);
        let written =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path).and_then(
                |mut file| {
                    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
                    file.write_all(bytes)
                },
            );
        written.map_err(|source| BundleError { operation: "write", path, source })
    }

    /// Spans the shim and runtime wrote for the last start; empty when there are none.
    pub fn trace(&self) -> Vec<Span> {
        self.spans_of("trace.json")
    }

    /// Asks the shim for the spans of an exec that is to be started.
    ///
    /// # Errors
    /// The file system's.
    pub fn ask_exec_trace(&self, exec_id: &ExecId) -> Result<(), BundleError> {
        self.write(&exec_trace_file(exec_id.as_str()), 0o600, b"")
    }

    /// The spans asked for; the file goes.
    pub fn take_exec_trace(&self, exec_id: &ExecId) -> Vec<Span> {
        let name = exec_trace_file(exec_id.as_str());
        let spans = self.spans_of(&name);
        // Gone already with the bundle: then there are none.
        let _gone = std::fs::remove_file(self.file(&name));
        spans
    }

    fn spans_of(&self, name: &str) -> Vec<Span> {
        let Ok(file) = std::fs::File::open(self.file(name)) else { return Vec::new() };
        let mut bytes = Vec::new();
        if file.take(TRACE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
            return Vec::new();
        }
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The shim's note on a signal that ended init; `None` when it exited by itself, or the shim writes no notes.
    pub fn exit_note(&self) -> Option<ExitNote> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.file(exit_note::FILE)).ok()?;
        file.take(exit_note::BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice::<ExitNote>(&bytes).ok().filter(|note| note.is_known())
    }

    /// Deletes the directory; nothing there is fine.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self) -> Result<(), BundleError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| BundleError { operation: "remove", path: self.path.clone(), source }),
        }
    }

    /// Ids that have a bundle, to find tasks again after a restart.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn list(tasks_dir: &Path) -> Result<Vec<ContainerId>, BundleError> {
        let error = |source| BundleError { operation: "list", path: tasks_dir.to_owned(), source };
        let entries = match std::fs::read_dir(tasks_dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(error)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(error)?.file_name();
            ids.extend(name.to_str().and_then(|text| text.parse().ok()));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The bytes that version 1 of a note has.
    #[test]
    fn reads_a_note_of_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of(dir.path(), &"abc".parse().unwrap());
        bundle.create().unwrap();
        assert_eq!(bundle.exit_note(), None);
        let note = |bytes: &[u8]| {
            bundle.write(exit_note::FILE, 0o600, bytes).unwrap();
            bundle.exit_note()
        };
        let written = br#"{"version":1,"signal":31,"core_dumped":true}"#;
        assert_eq!(note(written), Some(ExitNote::new(31, true)));
        assert_eq!(serde_json::to_vec(&ExitNote::new(31, true)).unwrap(), written);
        assert_eq!(note(br#"{"version":2,"signal":31,"core_dumped":true}"#), None);
        assert_eq!(note(b"{"), None);
    }

    #[test]
    fn create_write_list_remove() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "abc".parse().unwrap();
        let bundle = Bundle::of(dir.path(), &id);
        bundle.create().unwrap();
        bundle.write("hosts", 0o644, b"x").unwrap();
        bundle.create().unwrap();
        assert!(!bundle.file("hosts").exists(), "a new bundle is empty");
        assert_eq!(std::fs::metadata(bundle.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Bundle::list(dir.path()).unwrap(), [id]);
        assert_eq!(bundle.trace(), []);
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert_eq!(Bundle::list(&dir.path().join("none")).unwrap(), []);
    }
}
