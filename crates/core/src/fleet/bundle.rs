//! A fleet task's directory. Shims may leave mounts on `rootfs` and directories of their own: mounts are taken off before anything is deleted,
//! nothing that another mount has is ever deleted, and `rootfs` itself is only ever removed empty, so no file of an image or of the host can be
//! lost here.

mod rubbish;

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::runtime::Shim;
use super::{FleetError, Result};
use crate::objects::{AnyValue, Tenant};

const ROOTFS: &str = "rootfs";
const BINARY_FILE: &str = "shim-binary-path";
/// Where shims keep what they write on the way, as containerd gives it to them.
const WORK_DIR: &str = "work";
/// Where the shim listens (crate `shim-client` writes it).
const BOOTSTRAP_FILE: &str = "bootstrap.json";
/// The sandbox whose shim has the task.
const SANDBOX_FILE: &str = "sandbox";
const TEXT_BYTES_MAX: u64 = 4096;

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
        let rootfs = bundle.path.join(ROOTFS);
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
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FleetError::Bundle { operation, path, source }
        };
        match rubbish::open(&self.path) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("open", &self.path)(errno.into())),
            Ok(dir) => rubbish::empty(&dir, ROOTFS).map_err(|(name, errno)| {
                let path = self.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                failed("remove", &path)(errno.into())
            })?,
        }
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.path)(error)),
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(dir: &Path) -> FleetBundle {
        FleetBundle::create(dir, &Tenant::docker(), "c1", None, &Shim::Own).unwrap()
    }

    /// S-131: what a shim leaves in its bundle does not keep the id from being used again; files of an image that are there stay.
    #[test]
    fn s131_bundles_go_with_what_shims_left() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let shims = dir.path().join("shims");
        let left = bundle(&shims);
        let state = left.path().join("oci/c1/deep");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("state.json"), "{}").unwrap();
        std::os::unix::fs::symlink(&outside, state.join("link")).unwrap();
        let again = bundle(&shims);
        assert!(!again.path().join("oci").exists());
        again.remove().unwrap();
        assert!(!again.path().exists() && outside.join("kept").exists());
        again.remove().unwrap();

        // A root file system that was unpacked in place is nobody's rubbish.
        let full = bundle(&shims);
        std::fs::write(full.path().join("rootfs/file"), "x").unwrap();
        let error = full.remove().unwrap_err();
        assert!(berth_types::report(&error).contains("rootfs"), "{error}");
        assert!(full.path().join("rootfs/file").exists());
    }
}
