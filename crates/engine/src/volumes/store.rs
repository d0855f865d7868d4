//! Volumes on disk, and which of them a create holds at this moment.
//!
//! ```text
//! <data-root>/volumes/<name>/volume.json    version 1; written and flushed before the name appears
//!                            _data/         what containers see
//!                     .new-<n>/             being made; swept at the next start
//! ```
//! Lock: one mutex, a leaf, held for map changes and one rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use berth_types::{ContainerId, ErrorClass, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

const VERSION: u32 = 1;
const RECORD: &str = "volume.json";
const DATA: &str = "_data";
const NEW: &str = ".new-";

/// One volume's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Options of the local driver: `type=none,o=bind,device=/path`.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) is_anonymous: bool,
    /// The create that made it, until the volume stands on its own.
    #[serde(default)]
    pub(crate) created_for: Option<ContainerId>,
}

impl Volume {
    pub(crate) fn new(name: String) -> Self {
        Self {
            version: VERSION,
            name,
            created: Timestamp::now(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            is_anonymous: false,
            created_for: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct VolumeStore {
    dir: PathBuf,
    trash: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    volumes: BTreeMap<String, Volume>,
    /// Creates that are about to use a volume.
    held: BTreeMap<String, usize>,
}

impl VolumeStore {
    /// Opens the store; what cannot be read is reported and left alone.
    pub(crate) fn open(dir: PathBuf, trash: PathBuf) -> Result<Self> {
        let mut volumes = BTreeMap::new();
        let entries = fs::read_dir(&dir).map_err(|error| EngineError::io("list volumes in", &dir, &error))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(NEW) {
                discard(&path, &trash)?;
                continue;
            }
            match read(&path) {
                Ok(volume) if volume.name == name => drop(volumes.insert(name, volume)),
                Ok(_) => tracing::error!(path = %path.display(), "a volume's record has another name"),
                Err(error) => tracing::error!(path = %path.display(), %error, "a volume's record is unreadable"),
            }
        }
        Ok(Self { dir, trash, inner: Mutex::new(Inner { volumes, held: BTreeMap::new() }) })
    }

    pub(crate) fn list(&self) -> Vec<Volume> {
        self.inner.lock().volumes.values().cloned().collect()
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        self.inner.lock().volumes.get(name).cloned().ok_or_else(|| no_such_volume(name))
    }

    /// Where a volume's files are: its own directory, or the one it stands for.
    pub(crate) fn source(&self, volume: &Volume) -> PathBuf {
        volume.options.get("device").map_or_else(|| self.dir.join(&volume.name).join(DATA), PathBuf::from)
    }

    /// Makes a volume whose files `fill` puts in place, or returns the one that is there already (`false`).
    pub(crate) fn create(&self, volume: Volume, fill: impl FnOnce(&Path) -> Result<()>) -> Result<(Volume, bool)> {
        if let Some(there) = self.inner.lock().volumes.get(&volume.name) {
            return Ok((there.clone(), false));
        }
        let new = self.dir.join(format!("{NEW}{:016x}", rand::random::<u64>()));
        let made = self.make(&new, &volume, fill);
        let kept = made.and_then(|()| {
            let mut inner = self.inner.lock();
            if let Some(there) = inner.volumes.get(&volume.name) {
                return Ok((there.clone(), false));
            }
            let target = self.dir.join(&volume.name);
            fs::rename(&new, &target).map_err(|error| EngineError::io("create volume", &target, &error))?;
            inner.volumes.insert(volume.name.clone(), volume.clone());
            Ok((volume, true))
        });
        if !matches!(kept, Ok((_, true)))
            && let Err(error) = discard(&new, &self.trash)
        {
            tracing::warn!("a volume that was not made is left: {error}");
        }
        kept
    }

    fn make(&self, new: &Path, volume: &Volume, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let failed = |error: &io::Error| EngineError::io("create volume directory", new, error);
        fs::DirBuilder::new().mode(0o701).create(new).map_err(|error| failed(&error))?;
        let data = new.join(DATA);
        fs::DirBuilder::new().mode(0o755).create(&data).map_err(|error| failed(&error))?;
        fill(&data)?;
        write(new, volume)
    }

    /// From now on the volume stands on its own, whatever becomes of the container it was made for.
    pub(crate) fn keep(&self, name: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        let Some(volume) = inner.volumes.get_mut(name).filter(|volume| volume.created_for.is_some()) else {
            return Ok(());
        };
        volume.created_for = None;
        write(&self.dir.join(name), volume)
    }

    /// Keeps a volume from being removed until `release`.
    pub(super) fn hold(&self, name: &str) {
        *self.inner.lock().held.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn release(&self, name: &str) {
        let mut inner = self.inner.lock();
        if let Some(count) = inner.held.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                inner.held.remove(name);
            }
        }
    }

    /// Removes it unless a create holds it. Whether containers use it is the caller's question.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while it is held.
    pub(crate) fn remove(&self, name: &str) -> Result<Volume> {
        let mut inner = self.inner.lock();
        if inner.held.contains_key(name) {
            return Err(EngineError::conflict(format!("remove {name}: volume is in use by a container being created")));
        }
        let volume = inner.volumes.get(name).cloned().ok_or_else(|| no_such_volume(name))?;
        discard(&self.dir.join(name), &self.trash)?;
        inner.volumes.remove(name);
        Ok(volume)
    }
}

pub(super) fn no_such_volume(name: &str) -> EngineError {
    let shown: String = name.chars().take(140).collect();
    EngineError::new(ErrorClass::NotFound, format!("get {shown}: no such volume"))
        .with_hint("berth volume ls lists what there is")
}

fn read(dir: &Path) -> Result<Volume> {
    let path = dir.join(RECORD);
    let bytes = fs::read(&path).map_err(|error| EngineError::io("read volume", &path, &error))?;
    let volume: Volume = serde_json::from_slice(&bytes)
        .map_err(|error| EngineError::internal(format!("volume record {}: {error}", path.display())))?;
    if volume.version != VERSION {
        return Err(EngineError::internal(format!("volume record {} has version {}", path.display(), volume.version)));
    }
    Ok(volume)
}

/// Old or new after a crash; flushed, since volumes are what people keep.
fn write(dir: &Path, volume: &Volume) -> Result<()> {
    let json = serde_json::to_vec(volume)
        .map_err(|error| EngineError::internal(format!("cannot encode volume {}: {error}", volume.name)))?;
    let (path, temporary) = (dir.join(RECORD), dir.join("volume.tmp"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&json)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_data()
    };
    write().map_err(|error| EngineError::io("write volume", &path, &error))
}

/// Deleting is background work.
fn discard(dir: &Path, trash: &Path) -> Result<()> {
    let target = trash.join(format!("volume.{:016x}", rand::random::<u64>()));
    match fs::rename(dir, &target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EngineError::io("move to the trash", dir, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &Path) -> VolumeStore {
        for dir in ["volumes", "trash"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        VolumeStore::open(root.join("volumes"), root.join("trash")).unwrap()
    }

    #[test]
    fn made_found_again_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let first = store(root.path());
        let mut volume = Volume::new("data".to_owned());
        volume.created_for = Some("c1".parse().unwrap());
        let fill = |dir: &Path| fs::write(dir.join("f"), "x").map_err(|e| EngineError::io("write", dir, &e));
        assert!(first.create(volume.clone(), fill).unwrap().1);
        assert!(!first.create(Volume::new("data".to_owned()), |_| panic!("it is there")).unwrap().1);
        let again = store(root.path());
        assert_eq!(again.get("data").unwrap(), volume);
        assert_eq!(fs::read_to_string(again.source(&volume).join("f")).unwrap(), "x");
        again.keep("data").unwrap();
        assert_eq!(store(root.path()).get("data").unwrap().created_for, None);
        again.hold("data");
        assert_eq!(again.remove("data").unwrap_err().class, ErrorClass::FailedPrecondition);
        again.release("data");
        again.remove("data").unwrap();
        assert_eq!(again.remove("data").unwrap_err().message, "get data: no such volume");
        assert_eq!(fs::read_dir(root.path().join("volumes")).unwrap().count(), 0);
    }

    /// What a crash left half made goes; a record nobody can read is left for a person.
    #[test]
    fn leftovers() {
        let root = tempfile::tempdir().unwrap();
        store(root.path());
        fs::create_dir(root.path().join("volumes/.new-1")).unwrap();
        fs::create_dir(root.path().join("volumes/odd")).unwrap();
        fs::write(root.path().join("volumes/odd/volume.json"), "{").unwrap();
        assert_eq!(store(root.path()).list(), []);
        assert!(!root.path().join("volumes/.new-1").exists());
        assert!(root.path().join("volumes/odd").exists());
    }

    #[test]
    fn a_fill_that_fails_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let error = store.create(Volume::new("v1".to_owned()), |_| Err(EngineError::invalid("no"))).unwrap_err();
        assert_eq!(error.message, "no");
        assert_eq!(store.list(), []);
        assert_eq!(fs::read_dir(root.path().join("volumes")).unwrap().count(), 0);
    }
}
