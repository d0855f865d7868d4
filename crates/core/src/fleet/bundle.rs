//! A fleet task's directory. Shims may leave mounts on `rootfs`: those are taken off before anything is deleted, and `rootfs` itself is
//! only ever removed empty, so no file of an image or of the host can be lost here.

use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::runtime::Shim;
use super::{FleetError, Result};
use crate::objects::{AnyValue, Tenant};

const BINARY_FILE: &str = "shim-binary-path";
/// Where shims keep what they write on the way, as containerd gives it to them.
const WORK_DIR: &str = "work";
/// Where the shim listens (crate `shim-client` writes it).
const BOOTSTRAP_FILE: &str = "bootstrap.json";
/// The sandbox whose shim has the task.
const SANDBOX_FILE: &str = "sandbox";
const TEXT_BYTES_MAX: u64 = 4096;
/// Mounts on one directory that are taken off at most.
const MOUNTS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FleetBundle {
    path: PathBuf,
}

impl FleetBundle {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces what an earlier task of the id left.
    pub(super) fn create(dir: &Path, tenant: &Tenant, id: &str, spec: Option<&AnyValue>, shim: &Shim) -> Result<Self> {
        let bundle = Self { path: dir.join(tenant.as_str()).join(id) };
        bundle.remove()?;
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FleetError::Bundle { operation, path, source }
        };
        let rootfs = bundle.path.join("rootfs");
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&rootfs).map_err(failed("create", &rootfs))?;
        let work = bundle.path.join(WORK_DIR);
        std::fs::DirBuilder::new().mode(0o700).create(&work).map_err(failed("create", &work))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = bundle.path.join(name);
            std::fs::write(&path, bytes).map_err(failed("write", &path))
        };
        write("config.json", spec.map(|any| any.value.as_slice()).unwrap_or_default())?;
        write(BINARY_FILE, shim.text().as_bytes())?;
        Ok(bundle)
    }

    /// The task is on the shim of a sandbox, and is found there again after a restart.
    pub(super) fn join(&self, sandbox: &Self, sandbox_id: &str) -> Result<()> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FleetError::Bundle { operation, path, source }
        };
        let (from, to) = (sandbox.path.join(BOOTSTRAP_FILE), self.path.join(BOOTSTRAP_FILE));
        std::fs::copy(&from, &to).map_err(failed("copy", &from))?;
        let mark = self.path.join(SANDBOX_FILE);
        std::fs::write(&mark, sandbox_id).map_err(failed("write", &mark))
    }

    pub(super) fn is_in_sandbox(&self) -> bool {
        self.path.join(SANDBOX_FILE).exists()
    }

    /// Which shim it was started with.
    pub(super) fn shim(&self) -> Result<Shim> {
        let path = self.path.join(BINARY_FILE);
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(TEXT_BYTES_MAX).read_to_string(&mut text))
            .map_err(|source| FleetError::Bundle { operation: "read", path, source })?;
        Ok(Shim::from_text(&text))
    }

    /// Deletes it; nothing there is fine.
    pub(super) fn remove(&self) -> Result<()> {
        let rootfs = self.path.join("rootfs");
        for _ in 0..MOUNTS_MAX {
            if unmount(&rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
                break;
            }
        }
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FleetError::Bundle { operation, path, source }
        };
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("list", &self.path))?,
        };
        for entry in entries {
            let path = entry.map_err(failed("list", &self.path))?.path();
            let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let removed = match is_dir {
                // The shim's own files; nothing is mounted there.
                true if path.ends_with(WORK_DIR) => std::fs::remove_dir_all(&path),
                true => std::fs::remove_dir(&path),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(failed("remove", &path))?;
        }
        std::fs::remove_dir(&self.path).map_err(failed("remove", &self.path))
    }

    /// All there are, with their tenant and id.
    pub(super) fn list(dir: &Path) -> Vec<(Tenant, String, Self)> {
        let mut found = Vec::new();
        for tenant_dir in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Some(tenant) = tenant_dir.file_name().to_str().and_then(|name| name.parse::<Tenant>().ok()) else {
                continue;
            };
            for entry in std::fs::read_dir(tenant_dir.path()).into_iter().flatten().flatten() {
                if let Some(id) = entry.file_name().to_str() {
                    found.push((tenant.clone(), id.to_owned(), Self { path: entry.path() }));
                }
            }
        }
        found
    }
}
