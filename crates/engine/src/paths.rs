//! Where the engine keeps what, below its two roots.
//!
//! ```text
//! <data-root>/  metadata.redb  events/  lock  trash/            <state>/  containers/<id>.json   records of --rm containers
//!               containers/<id>/<id>-json.log                             tasks/<id>/            bundles
//!               content/ snapshots/ (crate image)  volumes/                         sockets/               the shims' sockets
//!                                                                         seccomp/<hash>.bpf  berth-init  events.sock
//!                                                                         shims/<tenant>/<id>/    (core::fleet)  containerd.sock.ttrpc
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_types::ContainerId;

use crate::error::{EngineError, Result};

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) data: PathBuf,
    pub(crate) state: PathBuf,
}

impl Paths {
    /// Makes the directories that must exist; all private to root.
    pub(crate) fn create(data: &Path, state: &Path) -> Result<Self> {
        let paths = Self { data: data.to_owned(), state: state.to_owned() };
        for (dir, mode) in [
            (data.to_owned(), 0o711),
            (state.to_owned(), 0o711),
            (paths.containers(), 0o700),
            (paths.trash(), 0o700),
            (paths.volumes(), 0o701),
            (paths.throw_away_records(), 0o700),
            (paths.tasks(), 0o700),
            (paths.sockets(), 0o700),
            (paths.shims(), 0o711),
            (paths.seccomp(), 0o700),
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&dir)
                .map_err(|error| EngineError::io("create directory", &dir, &error))?;
        }
        Ok(paths)
    }

    pub(crate) fn metadata(&self) -> PathBuf {
        self.data.join("metadata.redb")
    }
    pub(crate) fn events(&self) -> PathBuf {
        self.data.join("events")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }
    pub(crate) fn trash(&self) -> PathBuf {
        self.data.join("trash")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
    pub(crate) fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }
    pub(crate) fn throw_away_records(&self) -> PathBuf {
        self.state.join("containers")
    }
    pub(crate) fn tasks(&self) -> PathBuf {
        self.state.join("tasks")
    }
    pub(crate) fn sockets(&self) -> PathBuf {
        self.state.join("sockets")
    }
    pub(crate) fn seccomp(&self) -> PathBuf {
        self.state.join("seccomp")
    }
    pub(crate) fn init_binary(&self) -> PathBuf {
        self.state.join("berth-init")
    }
    pub(crate) fn shims(&self) -> PathBuf {
        self.state.join("shims")
    }
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }
    pub(crate) fn containerd_ttrpc_socket(&self) -> PathBuf {
        self.state.join("containerd.sock.ttrpc")
    }
    pub(crate) fn events_socket(&self) -> PathBuf {
        self.state.join("events.sock")
    }
}
