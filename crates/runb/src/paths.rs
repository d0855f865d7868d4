//! Files of the command: bundles, specs, pid files, containers by id.

use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::document::Parsed;
use berth_oci::runtime::Spec;
use berth_runtime::{Container, Saved, StateDir};
use berth_types::ContainerId;

use crate::error::CommandError;

/// Larger documents are refused.
const DOCUMENT_MAX: u64 = 8 << 20;

pub(crate) fn bundle(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let path = given.unwrap_or(Path::new("."));
    path.canonicalize().map_err(file("find bundle", path))
}

pub(crate) fn spec(bundle: &Path) -> Result<Parsed<Spec>, CommandError> {
    let path = bundle.join("config.json");
    let json = |source| CommandError::Json { path: path.display().to_string(), source };
    berth_oci::document::spec(text(&path)?.as_bytes()).map_err(json)
}

pub(crate) fn document<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CommandError> {
    serde_json::from_str(&text(path)?).map_err(|source| CommandError::Json { path: path.display().to_string(), source })
}

fn text(path: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(DOCUMENT_MAX + 1).read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(path).map_err(file("open", path))?;
        opened.take(DOCUMENT_MAX + 1).read_to_string(&mut text)
    };
    if u64::try_from(read.map_err(file("read", path))?).unwrap_or(u64::MAX) > DOCUMENT_MAX {
        return Err(CommandError::Usage(format!("{} is larger than {DOCUMENT_MAX} bytes", path.display())));
    }
    Ok(text)
}

pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let path = path.display().to_string();
    move |source| CommandError::File { what, path, source }
}

/// A container of this root with what was written down of it.
pub(crate) fn saved(root: &Path, id: &str) -> Result<Saved, CommandError> {
    let id = ContainerId::of_runtime(id)?;
    Ok(Container::load(&StateDir::open(root, &id)?)?)
}

pub(crate) fn container(root: &Path, id: &str) -> Result<Container, CommandError> {
    saved(root, id).map(|saved| saved.container)
}

pub(crate) fn write_pid(path: Option<&Path>, pid: u32) -> Result<(), CommandError> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // By rename: whoever waits for the file must not read half a number.
    let temporary = path.with_file_name(format!(".{name}"));
    // What a command that was killed left there, a link somebody put there: the name goes, and nothing is written through it.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file("write", path)(error)),
        _ => {}
    }
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        std::io::Write::write_all(&mut file, pid.to_string().as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_written_whatever_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let (path, temporary) = (dir.path().join("pid"), dir.path().join(".pid"));
        let written = |pid: u32| {
            write_pid(Some(&path), pid).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), pid.to_string());
            assert!(!temporary.exists(), "nothing is left beside it");
        };
        written(1);
        // A command that was killed between the two steps.
        std::fs::write(&temporary, "12").unwrap();
        written(2);
        // A link is not followed.
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, &temporary).unwrap();
        written(3);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        // What is no file is somebody's.
        std::fs::create_dir(&temporary).unwrap();
        write_pid(Some(&path), 4).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3");
    }
}
