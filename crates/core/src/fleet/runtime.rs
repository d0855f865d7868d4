//! Which shim a runtime's name means.
//!
//! `io.containerd.berth.v1` is our own, `io.containerd.<name>.<version>` the binary `containerd-shim-<name>-<version>` in the searched
//! directories, an absolute path itself. containerd's clients ask for `io.containerd.runc.v2` when they are told nothing: where that shim is
//! not installed our own takes its place, since it runs the same documents with the same options.

use std::path::{Path, PathBuf};

use berth_shim_client::{ShimError, find_shim};

use super::{FleetError, Result};
use crate::SealedBinary;

/// Our own shim's name.
pub const OWN_RUNTIME: &str = "io.containerd.berth.v1";
/// What clients ask for by default.
const COMMON_RUNTIME: &str = "io.containerd.runc.v2";
/// As `shim-binary-path` has it for our own.
const OWN: &str = "berth";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shim {
    Own,
    Binary(PathBuf),
}

impl Shim {
    pub(super) fn executable(&self, own: &SealedBinary) -> PathBuf {
        match self {
            Self::Own => own.path(),
            Self::Binary(path) => path.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Own => OWN.to_owned(),
            Self::Binary(path) => path.display().to_string(),
        }
    }

    pub(super) fn from_text(text: &str) -> Self {
        if text == OWN { Self::Own } else { Self::Binary(PathBuf::from(text)) }
    }
}

pub(super) fn find(name: &str, search: &[PathBuf], _own: &SealedBinary) -> Result<Shim> {
    let is_own = name == OWN_RUNTIME
        || (Path::new(name).is_absolute() && Path::new(name).file_name().is_some_and(|n| n == "containerd-shim-berth-v1"));
    if is_own {
        return Ok(Shim::Own);
    }
    match find_shim(name, search) {
        Ok(path) => Ok(Shim::Binary(path)),
        Err(ShimError::NoShim { .. }) if name == COMMON_RUNTIME => Ok(Shim::Own),
        Err(source) => Err(FleetError::Runtime { source }),
    }
}
