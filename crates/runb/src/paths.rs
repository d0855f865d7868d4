//! Files of the command: bundles, specs, pid files, containers by id.

use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;
use berth_runtime::{Container, StateDir};
use berth_types::ContainerId;

use crate::error::CommandError;

/// Larger documents are refused.
const DOCUMENT_MAX: u64 = 8 << 20;

pub(crate) fn bundle(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let path = given.unwrap_or(Path::new("."));
    std::path::absolute(path).and_then(|path| path.canonicalize()).map_err(file("find bundle", path))
}

pub(crate) fn spec(bundle: &Path) -> Result<Spec, CommandError> {
    document(&bundle.join("config.json"))
}

pub(crate) fn document<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CommandError> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(DOCUMENT_MAX).read_to_string(&mut text).map_err(file("read", path))?;
    } else {
        let opened = std::fs::File::open(path).map_err(file("open", path))?;
        opened.take(DOCUMENT_MAX).read_to_string(&mut text).map_err(file("read", path))?;
    }
    serde_json::from_str(&text).map_err(|source| CommandError::Json { path: path.display().to_string(), source })
}

pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let path = path.display().to_string();
    move |source| CommandError::File { what, path, source }
}

/// A container of this root, and when it was created.
pub(crate) fn container(root: &Path, id: &str) -> Result<(Container, u64), CommandError> {
    let id: ContainerId = id.parse()?;
    let directory = StateDir::open(root, &id)?;
    let (bundle, created) = Container::saved_bundle(&directory)?;
    Ok((Container::load(&directory, &spec(&bundle)?)?, created))
}

pub(crate) fn write_pid(path: Option<&Path>, pid: u32) -> Result<(), CommandError> {
    let Some(path) = path else { return Ok(()) };
    // By rename: whoever waits for the file must not read half a number.
    let temporary = path.with_extension("tmp-pid");
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(file("write", path))
}
