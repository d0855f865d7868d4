//! Snapshots: unpacked layers by chain id and writable layers by container, below one root. The store does what is the same for every way to
//! keep files (names, completeness, crash recovery, deletion); a [`Driver`] does the rest. It knows nothing of images, tars or mounts.
//!
//! ```text
//! <root>/                                   0700, one file system
//!   version                                 "1"; another number is refused
//!   boot                                    boot id of the last opening: tells what a reboot came between
//!   layers/<chain id hex>/fs/               an unpacked layer, ready to be an overlay lower directory; never changed
//!                         layer.json        {"size_bytes", "boot_id", "seal"}: written last
//!                         settled           the files above are known to be on disk
//!   pending/<n>/...                         a layer being unpacked; renamed into layers/ when complete
//!   replaced/<chain id hex>.<n>/...         a damaged layer that was made again, as long as somebody may stand on it (see `replaced`)
//!   containers/<id>/{fs,work}/              the writable pair of a container
//!   throw-away/<id>/{fs,work}/              the same, mounted volatile: gone after a reboot
//!   snapshots/<n>/{fs,work}/                a snapshot of the containerd API that is no layer (see `snapshotter`)
//!   trash/<n>                               renamed here first, deleted in the background
//! ```
//!
//! Crashes. A name in `layers/` appears by one rename, after everything in it was written. A layer that was not settled when the host went
//! down may have holes where data never reached the disk: such layers are dropped at the next opening (their blobs are durable, so they can be
//! unpacked again), which is why unpacking needs no fsync per file. [`SnapshotStore::settle`] does one `syncfs` for all new layers.
//! A durable writable pair is made before its container's record is committed, and that commit also flushes the directories (journal order).
//!
//! Locks: `snapshots` while records and homes of snapshots change together; then `unsettled`, held for list changes only.

mod children;
mod driver;
mod erofs;
mod error;
mod home;
mod layer;
mod ledger;
mod mount;
mod recovery;
mod remap;
mod replaced;
mod snapshotter;
pub mod testsuite;
mod trash;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_rootfs::OverlayRootfs;
use berth_types::ChainId;
pub use driver::{
    BtrfsDriver, DRIVERS, DevmapperDriver, Driver, ErofsDriver, Files, NativeDriver, OverlayDriver, Seal, TreeSize,
    choose, try_out,
};
pub use erofs::{ErofsWriter, ImageMemory, ImageMemoryError, NodeAttributes, NodeId, NodeKind, is_out_of_memory};
pub use error::SnapshotError;
pub use layer::PendingLayer;
use layer::{LAYER_FILE, LayerRecord};
pub use ledger::{LayerSize, WalkCounts};
pub use mount::{Mount, mounts, rootfs_of_mounts};
pub use snapshotter::{
    Info, Kind, LocalSnapshotter, MemoryRecords, Place, RecordWrite, Records, RecordsError, SnapshotRecord,
    Snapshotter, Usage,
};
pub use trash::Trash;

type Result<T> = std::result::Result<T, SnapshotError>;

/// Chain ids that are in place but not known to be on disk.
type Unsettled = Arc<Mutex<BTreeSet<ChainId>>>;

/// All layers and writable pairs of one data root. Shared by threads; every method takes `&self`.
#[derive(Debug)]
pub struct SnapshotStore {
    root: PathBuf,
    boot_id: String,
    driver: Arc<dyn Driver>,
    trash: Arc<Trash>,
    unsettled: Unsettled,
    ledger: Arc<ledger::Ledger>,
    next_pending: AtomicU64,
    next_home: AtomicU64,
    removals: AtomicU64,
    replaced: replaced::Replaced,
    snapshots: Mutex<children::Children>,
}

impl SnapshotStore {
    /// Opens or makes the store with the overlay driver. Half-done things stay until [`Self::sweep`]; what a reboot made unsure is dropped.
    ///
    /// # Errors
    /// `FailedPrecondition` for a store of another version; what the kernel says, with the path.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Box::new(OverlayDriver))
    }

    /// The same with another driver.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(root: &Path, driver: Box<dyn Driver>) -> Result<Self> {
        for name in ["", "layers", "pending", "replaced", "containers", "throw-away", "snapshots", "trash"] {
            make_dir_private(&root.join(name))?;
        }
        recovery::check_version(root)?;
        let driver: Arc<dyn Driver> = Arc::from(driver);
        let store = Self {
            root: root.to_owned(),
            boot_id: recovery::boot_id()?,
            trash: Arc::new(Trash::open(root.join("trash"), Arc::clone(&driver))?),
            driver,
            unsettled: Unsettled::default(),
            ledger: Arc::default(),
            next_pending: AtomicU64::new(0),
            next_home: AtomicU64::new(home::next_number(root)?),
            removals: AtomicU64::new(0),
            replaced: replaced::Replaced::open(root)?,
            snapshots: Mutex::default(),
        };
        recovery::recover(&store)?;
        Ok(store)
    }

    /// What stands for the layer among the lowers of [`Self::prepare`]. A directory with its files unless the driver keeps those elsewhere.
    pub fn lower(&self, chain_id: &ChainId) -> PathBuf {
        self.driver.lower(&self.layer_home(chain_id))
    }

    /// Where the layer's files are (or would be): to be read, and with layered drivers an overlay lower directory.
    pub fn layer_dir(&self, chain_id: &ChainId) -> Files {
        self.driver.files(&self.layer_home(chain_id))
    }

    pub fn has_layer(&self, chain_id: &ChainId) -> bool {
        self.layer_home(chain_id).join(LAYER_FILE).exists()
    }

    /// Chain ids of all complete layers, sorted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn layers(&self) -> Result<Vec<ChainId>> {
        let mut layers: Vec<ChainId> =
            names(&self.root.join("layers"))?.iter().filter_map(|name| ChainId::from_hex(name).ok()).collect();
        layers.sort();
        Ok(layers)
    }

    /// The size given to [`PendingLayer::commit`]; `None` when there is no such layer.
    pub fn layer_size(&self, chain_id: &ChainId) -> Option<u64> {
        self.ledger.get(chain_id).map(|size| size.size_bytes)
    }

    /// Why a layer cannot be used as it is: it is gone, or what is cheap to see says that it is not what was written.
    pub fn layer_damage(&self, chain_id: &ChainId) -> Option<String> {
        let home = self.layer_home(chain_id);
        match LayerRecord::load(&home) {
            Ok(Some(record)) => self.driver.damage(&home, &record.seal),
            Ok(None) => Some("it is gone".to_owned()),
            Err(_) => Some("its record cannot be read".to_owned()),
        }
    }

    /// Grows when a layer leaves its place: what was made of paths of layers before is to be made again.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// An empty directory to unpack a layer into. Dropped without `commit`: discarded.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin_layer(&self, chain_id: &ChainId) -> Result<PendingLayer> {
        self.begin_layer_on(chain_id, None)
    }

    /// The same on the files of a layer below, which a driver that keeps whole trees copies; others do not need it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin_layer_on(&self, chain_id: &ChainId, below: Option<&Path>) -> Result<PendingLayer> {
        let home = loop {
            let number = self.next_pending.fetch_add(1, Ordering::Relaxed);
            let home = self.root.join("pending").join(number.to_string());
            match make_dir(&home) {
                Ok(()) => break home,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(SnapshotError::io("create", &home, source)),
            }
        };
        let made = self.driver.make_layer(&home, below);
        if made.is_err() {
            // The first error is the one that matters; what stays is swept at the next start.
            self.trash.put(&home).ok();
        }
        let files = made?;
        Ok(PendingLayer {
            chain_id: *chain_id,
            target: self.layer_home(chain_id),
            boot_id: self.boot_id.clone(),
            driver: Arc::clone(&self.driver),
            trash: Arc::clone(&self.trash),
            unsettled: Arc::clone(&self.unsettled),
            ledger: Arc::clone(&self.ledger),
            files,
            home,
            is_placed: false,
            stays_directory: false,
        })
    }

    /// Renames the layer to the trash. Not there: fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_layer(&self, chain_id: &ChainId) -> Result<()> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).remove(chain_id);
        self.trash.put(&self.layer_home(chain_id))?;
        self.ledger.remove(chain_id);
        self.removals.fetch_add(1, Ordering::Release);
        self.driver.forget(&self.layer_home(chain_id));
        // The layer may be deleted by now: what was held of it, too.
        self.trash.wake();
        Ok(())
    }

    /// Makes all new layers durable: one `syncfs` however many they are. Until then they are complete, but a crash of the host costs them.
    ///
    /// # Errors
    /// What the kernel says about writing; the layers stay unsettled then.
    pub fn settle(&self) -> Result<()> {
        let layers: Vec<ChainId> =
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if layers.is_empty() {
            return Ok(());
        }
        let root = fs::File::open(&self.root).map_err(|source| SnapshotError::io("open", &self.root, source))?;
        rustix::fs::syncfs(&root).map_err(|errno| SnapshotError::io("sync", &self.root, errno.into()))?;
        for chain_id in layers {
            self.mark_settled(&chain_id)?;
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).remove(&chain_id);
        }
        Ok(())
    }

    /// The same, when this layer is not durable yet.
    pub(crate) fn settle_layer(&self, chain_id: &ChainId) -> Result<()> {
        let is_settled = !self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).contains(chain_id);
        if is_settled { Ok(()) } else { self.settle() }
    }

    /// Fresh upper and work directories for a container. `lowers` top to bottom. Throw-away pairs do not survive a reboot.
    ///
    /// # Errors
    /// `AlreadyExists` when the container has a pair, `InvalidArgument` for an id that is no file name, `NotFound` for a missing layer.
    pub fn prepare(&self, container_id: &str, lowers: Vec<PathBuf>, is_throw_away: bool) -> Result<OverlayRootfs> {
        let home = self.pair_home(container_id, is_throw_away)?;
        if self.pair_home(container_id, !is_throw_away)?.exists() {
            return Err(SnapshotError::AlreadyPrepared { container_id: container_id.to_owned() });
        }
        make_dir(&home).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SnapshotError::AlreadyPrepared { container_id: container_id.to_owned() },
            _ => SnapshotError::io("create", &home, source),
        })?;
        let made =
            self.driver.make_writable(&home, &lowers).and_then(|()| self.driver.rootfs(&home, lowers, is_throw_away));
        if made.is_err() {
            // The first error is the one that matters; the empty pair would be swept as an orphan anyway.
            self.trash.put(&home).ok();
        }
        made
    }

    /// What `prepare` returned for this container, again.
    ///
    /// # Errors
    /// `NotFound` when it has no pair.
    pub fn rootfs(&self, container_id: &str, lowers: Vec<PathBuf>) -> Result<OverlayRootfs> {
        for is_throw_away in [false, true] {
            let home = self.pair_home(container_id, is_throw_away)?;
            if home.exists() {
                return self.driver.rootfs(&home, lowers, is_throw_away);
            }
        }
        Err(SnapshotError::NotPrepared { container_id: container_id.to_owned() })
    }

    /// Renames the writable pair to the trash. Not there: fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn discard(&self, container_id: &str) -> Result<()> {
        for is_throw_away in [true, false] {
            self.trash.put(&self.pair_home(container_id, is_throw_away)?)?;
        }
        Ok(())
    }

    /// Container ids that have a writable pair, sorted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn prepared(&self) -> Result<Vec<String>> {
        let mut ids = names(&self.root.join("containers"))?;
        ids.extend(names(&self.root.join("throw-away"))?);
        ids.sort();
        Ok(ids)
    }

    /// Bytes of regular files in the writable layer, several names of one file counted once.
    ///
    /// # Errors
    /// What the kernel says; files that disappear meanwhile are fine.
    pub fn writable_size(&self, rootfs: &OverlayRootfs) -> Result<u64> {
        Ok(self.writable_tree(rootfs)?.usage.size_bytes)
    }

    /// Removes what a crash left: pending layers go to the trash. Only while no layer is being unpacked, so at start.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sweep(&self) -> Result<()> {
        let pending = self.root.join("pending");
        for name in names(&pending)? {
            self.trash.put(&pending.join(name))?;
        }
        Ok(())
    }

    /// The tree a container's writable layer began as a copy of; nothing where it holds only changes.
    pub fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        self.driver.base(rootfs)
    }

    pub fn driver(&self) -> &dyn Driver {
        self.driver.as_ref()
    }

    pub(crate) fn lock_snapshots(&self) -> MutexGuard<'_, children::Children> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being deleted.
    pub fn trash(&self) -> &Arc<Trash> {
        &self.trash
    }

    /// The store's background work, for a thread of the caller's: settles new layers and empties the trash at the lowest priority, waits for
    /// more, and returns after [`Trash::stop`]. What failed comes to `failed` and is tried again with the next piece of work. `more` is work of the
    /// caller's for the same moments; [`Trash::wake`] calls for it.
    pub fn work(&self, mut more: impl FnMut(), mut failed: impl FnMut(SnapshotError)) {
        // Without it the work is done all the same.
        rustix::process::setpriority_process(None, 19).ok();
        while self.trash.wait() {
            if let Err(error) = self.settle() {
                failed(error);
            }
            if let Err(error) = self.trash.empty() {
                failed(error);
            }
            more();
        }
    }

    fn layer_home(&self, chain_id: &ChainId) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    fn pair_home(&self, container_id: &str, is_throw_away: bool) -> Result<PathBuf> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if container_id.starts_with('.')
            || !(1..=128).contains(&container_id.len())
            || !container_id.bytes().all(is_name)
        {
            return Err(SnapshotError::Name { container_id: container_id.chars().take(64).collect() });
        }
        Ok(self.root.join(if is_throw_away { "throw-away" } else { "containers" }).join(container_id))
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn make_dir_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|source| SnapshotError::io("create", path, source))
}

/// Names in a directory that are text; all of ours are.
fn names(dir: &Path) -> Result<Vec<String>> {
    let error = |source| SnapshotError::io("list", dir, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(error)? {
        if let Ok(name) = entry.map_err(error)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
