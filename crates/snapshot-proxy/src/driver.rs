//! The engine's layers and writable layers in an external snapshotter's hands.
//!
//! ```text
//! <home>/snapshot.json    {"key", "parent", "is_committed"}: on the disk before the snapshot is made, gone after it is
//! ```
//!
//! A layer's files are seen through a detached mount that this process holds: of the active snapshot while it is unpacked, of a view later.
//! Containers' root file systems are mounted by the shim from what the snapshotter says, and do not need us. Where a path of such a mount is given
//! out, [`Files`] keeps it mounted; in plans of root file systems it holds until the home is deleted.
//!
//! Crashes: whatever a home names is removed when the home is, so the snapshotter keeps nothing that nobody knows. A layer can only go after
//! those based on it, so its home may wait in the trash. Snapshotters make snapshots durable at once, so the name of one goes to the disk first, for
//! containers of `--rm`, too: what a power failure leaves is the old record or the new one, and no snapshot without a record.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_rootfs::OverlayRootfs;
use berth_snapshot::{Driver, Files, Mount, Seal, SnapshotError, Snapshotter as _, Trash};
use berth_types::{Classify, ErrorClass, Labels};

use crate::{ProxySnapshotter, Result, mounts};

const RECORD_FILE: &str = "snapshot.json";
const UUID: &str = "/proc/sys/kernel/random/uuid";

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Record {
    /// Of the active snapshot; the committed one and the view on it are named after it.
    key: String,
    /// Name of the committed snapshot it is based on.
    parent: Option<String>,
    is_committed: bool,
}

impl Record {
    fn name(&self) -> String {
        format!("{}-layer", self.key)
    }

    fn view(&self) -> String {
        format!("{}-view", self.key)
    }
}

/// See the module.
#[derive(Debug)]
pub struct ProxyDriver {
    snapshots: ProxySnapshotter,
    /// Mounts by the key or view that is mounted.
    held: Mutex<HashMap<String, Arc<OwnedFd>>>,
}

impl ProxyDriver {
    pub(crate) fn new(snapshots: ProxySnapshotter) -> Self {
        Self { snapshots, held: Mutex::default() }
    }

    fn load(home: &Path) -> Result<Record> {
        let path = home.join(RECORD_FILE);
        let bytes = fs::read(&path).map_err(|source| SnapshotError::io("read", &path, source))?;
        serde_json::from_slice(&bytes).map_err(|source| SnapshotError::Record { path, source })
    }

    /// Complete on the disk before it has its name.
    fn store(home: &Path, record: &Record) -> Result<()> {
        let path = home.join(RECORD_FILE);
        let json = serde_json::to_vec(record).map_err(|source| SnapshotError::Record { path: path.clone(), source })?;
        let written = || {
            let draft = home.join("snapshot.new");
            let mut file = fs::File::create(&draft)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        written().map_err(|source| SnapshotError::io("write", &path, source))
    }

    /// The same for a home that is new: it is on the disk itself, with the name.
    fn store_first(home: &Path, record: &Record) -> Result<()> {
        Self::store(home, record)?;
        for directory in [Some(home), home.parent()].into_iter().flatten() {
            let flushed = fs::File::open(directory).and_then(|directory| directory.sync_all());
            flushed.map_err(|source| SnapshotError::io("flush", directory, source))?;
        }
        Ok(())
    }

    /// An active snapshot of the home's own.
    fn prepare(&self, home: &Path, parent: Option<String>) -> Result<(Record, Vec<Mount>)> {
        let id = fs::read_to_string(UUID).map_err(|source| SnapshotError::io("read", Path::new(UUID), source))?;
        let record = Record { key: format!("berth-{}", id.trim()), parent, is_committed: false };
        Self::store_first(home, &record)?;
        let mounts = self.snapshots.prepare(&record.key, record.parent.as_deref(), &Labels::new())?;
        if let Some(OverlayRootfs { upper: Some(upper), lowers, .. }) = mounts::plan(&mounts)
            && let Some(top) = lowers.first()
        {
            like(&upper, top)?;
        }
        Ok((record, mounts))
    }

    fn hold(&self, key: &str, mounts: &[Mount]) -> Result<Files> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = held.get(key) {
            return Ok(Files::of_mount(there));
        }
        let new = Arc::new(mounts::mount(mounts)?);
        let files = Files::of_mount(&new);
        held.insert(key.to_owned(), new);
        Ok(files)
    }

    fn held(&self, key: &str) -> Option<Files> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(Files::of_mount)
    }

    fn let_go(&self, key: &str) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Freezes a home's snapshot, unless it is.
    fn commit(&self, home: &Path) -> Result<Record> {
        let mut record = Self::load(home)?;
        if record.is_committed {
            return Ok(record);
        }
        self.let_go(&record.key);
        match self.snapshots.commit(&record.name(), &record.key, &Labels::new()) {
            // Killed before it was noted.
            Err(error) if error.class() == ErrorClass::NotFound && self.snapshots.stat(&record.name()).is_ok() => {}
            other => other?,
        }
        record.is_committed = true;
        Self::store(home, &record)?;
        Ok(record)
    }

    /// The committed snapshot that stands below, by the name that stands for it ([`Driver::lower`]).
    fn parent(&self, below: Option<&Path>) -> Result<Option<String>> {
        let Some(home) = below.map(|below| below.parent().unwrap_or(below)) else { return Ok(None) };
        Ok(Some(self.commit(home)?.name()))
    }

    /// The files of a home, mounted for as long as it is there.
    fn mounted(&self, home: &Path) -> Result<Files> {
        let record = Self::load(home)?;
        if !record.is_committed {
            let held = self.held(&record.key);
            return held.map_or_else(|| self.hold(&record.key, &self.snapshots.mounts(&record.key)?), Ok);
        }
        if let Some(path) = self.held(&record.view()) {
            return Ok(path);
        }
        let mounts = match self.snapshots.view(&record.view(), Some(&record.name()), &Labels::new()) {
            // An earlier process looked.
            Err(error) if error.class() == ErrorClass::AlreadyExists => self.snapshots.mounts(&record.view())?,
            other => other?,
        };
        self.hold(&record.view(), &mounts)
    }

    fn remove(&self, key: &str) -> Result<()> {
        match self.snapshots.remove(key) {
            Err(error) if error.class() == ErrorClass::NotFound => Ok(()),
            other => other,
        }
    }
}

/// The merged root has the mode of the upper directory; containerd makes that 0755 whatever the layer below has.
fn like(upper: &Path, top: &Path) -> Result<()> {
    let mode = fs::metadata(top).map_err(|source| SnapshotError::io("stat layer", top, source))?.permissions();
    fs::set_permissions(upper, mode).map_err(|source| SnapshotError::io("change the mode of", upper, source))
}

impl Driver for ProxyDriver {
    fn name(&self) -> &str {
        self.snapshots.name()
    }

    /// A layer is unpacked into a mount in which everything below it is seen.
    fn is_layered(&self) -> bool {
        false
    }

    fn files(&self, home: &Path) -> Files {
        // What cannot be mounted has no files; whoever looks for them is told that they are not there.
        self.mounted(home).unwrap_or_else(|error| {
            tracing::warn!(home = %home.display(), "{}", berth_types::report(&error));
            home.join("fs").into()
        })
    }

    fn lower(&self, home: &Path) -> PathBuf {
        home.join("fs")
    }

    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf> {
        let (record, mounts) = self.prepare(home, self.parent(below)?)?;
        let path = self.hold(&record.key, &mounts)?.to_path_buf();
        if below.is_none() {
            let mode = rustix::fs::Mode::from_raw_mode(0o755);
            rustix::fs::chmodat(rustix::fs::CWD, &path, mode, rustix::fs::AtFlags::empty())
                .map_err(|errno| SnapshotError::io("change the mode of", &path, errno.into()))?;
        }
        Ok(path)
    }

    fn finish_layer(&self, home: &Path) -> Result<()> {
        self.commit(home).map(drop)
    }

    /// Where the snapshotter does not answer, the use of the layer tells that.
    fn damage(&self, home: &Path, _seal: &Seal) -> Option<String> {
        let record = match Self::load(home) {
            Ok(record) => record,
            Err(error) => return Some(format!("it cannot be found any more: {}", berth_types::report(&error))),
        };
        match self.snapshots.stat(&record.name()) {
            Err(error) if error.class() == ErrorClass::NotFound => {
                Some(format!("the external snapshotter {} does not have {} any more", self.name(), record.name()))
            }
            _ => None,
        }
    }

    fn freeze(&self, home: &Path, _trash: &Trash) -> Result<()> {
        self.commit(home).map(drop)
    }

    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        self.prepare(home, self.parent(lowers.first().map(PathBuf::as_path))?).map(drop)
    }

    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        lowers.first().and_then(|lower| lower.parent()).map(|home| self.files(home).to_path_buf()).into_iter().collect()
    }

    fn rootfs(&self, home: &Path, _lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs> {
        let record = Self::load(home)?;
        let mounts = self.snapshots.mounts(&record.key)?;
        let whole =
            |files| OverlayRootfs { upper: Some(files), work: Some(home.join("work")), ..OverlayRootfs::default() };
        match mounts::plan(&mounts) {
            Some(plan) if !plan.lowers.is_empty() => Ok(OverlayRootfs { is_volatile: is_throw_away, ..plan }),
            Some(OverlayRootfs { upper: Some(upper), .. }) => Ok(whole(upper)),
            _ => Ok(whole(self.hold(&record.key, &mounts)?.to_path_buf())),
        }
    }

    fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        if !rootfs.lowers.is_empty() {
            return None;
        }
        let record = Self::load(rootfs.work.as_ref()?.parent()?).ok()?;
        let parent = record.parent?;
        let view = format!("{}-base", record.key);
        if let Some(path) = self.held(&view) {
            return Some(path);
        }
        let mounts = match self.snapshots.view(&view, Some(&parent), &Labels::new()) {
            Err(error) if error.class() == ErrorClass::AlreadyExists => self.snapshots.mounts(&view),
            other => other,
        };
        self.hold(&view, &mounts.ok()?).ok()
    }

    fn forget(&self, home: &Path) {
        if let Ok(record) = Self::load(home) {
            self.let_go(&record.key);
            self.let_go(&record.view());
        }
    }

    fn destroy(&self, home: &Path) -> Result<()> {
        let record = match Self::load(home) {
            Ok(record) => record,
            // Never was one, or the file never reached the disk: nothing is known of it.
            Err(SnapshotError::Record { .. }) => return Ok(()),
            Err(error) if error.class() == ErrorClass::NotFound => return Ok(()),
            // It is there and cannot be read now: what it names must not be forgotten.
            Err(error) => return Err(error),
        };
        let base = format!("{}-base", record.key);
        for key in [&record.view(), &base, &record.key] {
            self.let_go(key);
            self.remove(key)?;
        }
        self.remove(&record.name())?;
        // What has been removed may stand there until then (stargz's own removal is asynchronous); the next time does as well.
        if let Err(error) = self.snapshots.cleanup() {
            tracing::debug!("not cleaned up: {}", berth_types::report(&error));
        }
        Ok(())
    }
}
