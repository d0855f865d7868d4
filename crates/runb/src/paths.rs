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
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        std::io::Write::write_all(&mut file, pid.to_string().as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(file("write", path))
}
