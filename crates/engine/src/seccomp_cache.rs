//! Compiled seccomp programs as files, one per profile and capability set: compiled once, then only named in the spec.
//!
//! ```text
//! <state>/seccomp/<sha256 of profile, capabilities and kernel>.bpf
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_oci::runtime::LinuxSeccomp;
use berth_seccomp::{Profile, default_profile};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::error::{Doing, EngineError, Result};
use crate::request::security::{ProfileSource, SeccompMode, Security};

/// Largest profile we read; Docker's default has about 20 kB.
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// Default-profile programs remembered by capability set.
const REMEMBERED_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct SeccompCache {
    dir: PathBuf,
    kernel: (u32, u32),
    defaults: Mutex<HashMap<Vec<&'static str>, PathBuf>>,
}

impl SeccompCache {
    pub(crate) fn new(dir: PathBuf, kernel: (u32, u32)) -> Self {
        Self { dir, kernel, defaults: Mutex::default() }
    }

    /// The program's file; `None` for an unconfined container.
    pub(crate) fn program(&self, security: &Security) -> Result<Option<PathBuf>> {
        match &security.seccomp {
            SeccompMode::Unconfined => Ok(None),
            SeccompMode::Default => {
                if let Some(path) = self.defaults.lock().get(&security.capabilities) {
                    return Ok(Some(path.clone()));
                }
                let path = self.compile(&default_profile(), b"default", &security.capabilities)?;
                let mut defaults = self.defaults.lock();
                if defaults.len() >= REMEMBERED_MAX {
                    defaults.clear();
                }
                defaults.insert(security.capabilities.clone(), path.clone());
                Ok(Some(path))
            }
            SeccompMode::Profile(source) => {
                let json = match source {
                    ProfileSource::Json(json) => json.clone().into_bytes(),
                    ProfileSource::File(file) => read_profile(file)?,
                };
                let profile = parse(&json)?;
                self.compile(&profile, &json, &security.capabilities).map(Some)
            }
        }
    }

    /// For runtimes that want the profile itself; `None` for an unconfined container.
    pub(crate) fn document(&self, security: &Security) -> Result<Option<LinuxSeccomp>> {
        let profile = match &security.seccomp {
            SeccompMode::Unconfined => return Ok(None),
            SeccompMode::Default => default_profile(),
            SeccompMode::Profile(ProfileSource::Json(json)) => parse(json.as_bytes())?,
            SeccompMode::Profile(ProfileSource::File(file)) => parse(&read_profile(file)?)?,
        };
        crate::runtimes::seccomp_document(&profile, &security.capabilities, self.kernel).map(Some)
    }

    fn compile(&self, profile: &Profile, identity: &[u8], capabilities: &[&str]) -> Result<PathBuf> {
        let names: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
        let mut hash = Sha256::new();
        hash.update(identity);
        hash.update(format!("\0{}\0{:?}\0{}", names.join(","), self.kernel, env!("CARGO_PKG_VERSION")));
        let path = self.dir.join(format!("{}.bpf", hex::encode(hash.finalize())));
        if path.exists() {
            return Ok(path);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let program = profile.resolve(&names, self.kernel).and_then(|filter| filter.compile());
        let bytes = program.doing(|| "cannot use the seccomp profile".to_owned())?.to_bytes();
        let write = || {
            let mut file = tempfile_in(&self.dir)?;
            file.1.write_all(&bytes)?;
            std::fs::rename(&file.0, &path)
        };
        write().map_err(|error| EngineError::io("write seccomp program", &path, &error))?;
        Ok(path)
    }
}

fn parse(json: &[u8]) -> Result<Profile> {
    Profile::parse(json).doing(|| "cannot use the seccomp profile".to_owned())
}

fn tempfile_in(dir: &Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    let path = dir.join(format!("{}.tmp", hex::encode(rand::random::<[u8; 8]>())));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((path, file))
}

fn read_profile(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(PROFILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(
        |error| EngineError::io("read seccomp profile", path, &error).with_hint("name a readable JSON file"),
    )?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > PROFILE_BYTES_MAX) {
        return Err(EngineError::invalid(format!("seccomp profile {} is larger than 1 MiB", path.display())));
    }
    Ok(bytes)
}
