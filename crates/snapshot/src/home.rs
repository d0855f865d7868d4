//! Homes of snapshots that are no layers: numbered directories, made before their record and moved to the trash after it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use berth_rootfs::OverlayRootfs;
use berth_types::ChainId;

use crate::layer::{LAYER_FILE, LayerRecord};
use crate::ledger::LayerSize;
use crate::{Files, Place, Result, SnapshotError, SnapshotStore, TreeSize, Usage, make_dir, names};

/// A number that no home of the store has.
pub(crate) fn next_number(root: &Path) -> Result<u64> {
    let numbers = names(&root.join("snapshots"))?;
    Ok(numbers.iter().filter_map(|name| name.parse::<u64>().ok()).max().map_or(0, |last| last + 1))
}

impl SnapshotStore {
    /// A writable layer on top of `lowers` (top to bottom), in a home of its own.
    pub(crate) fn make_home(&self, lowers: &[PathBuf]) -> Result<u64> {
        let number = self.next_home.fetch_add(1, Ordering::Relaxed);
        let home = self.home(number);
        make_dir(&home).map_err(|source| SnapshotError::io("create", &home, source))?;
        let made = self.driver.make_writable(&home, lowers);
        if made.is_err() {
            // The first error is the one that matters; the home would be swept anyway.
            self.trash.put(&home).ok();
        }
        made.map(|()| number)
    }

    pub(crate) fn home_files(&self, number: u64) -> Files {
        self.driver.files(&self.home(number))
    }

    pub(crate) fn home_lower(&self, number: u64) -> PathBuf {
        self.driver.lower(&self.home(number))
    }

    pub(crate) fn home_rootfs(&self, number: u64, lowers: Vec<PathBuf>) -> Result<OverlayRootfs> {
        self.driver.rootfs(&self.home(number), lowers, false)
    }

    pub(crate) fn home_usage(&self, number: u64) -> Result<Usage> {
        Ok(self.home_tree(number)?.usage)
    }

    /// What a snapshot that is no layer holds now: a walk.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn home_tree(&self, number: u64) -> Result<TreeSize> {
        self.writable_tree(&self.home_rootfs(number, Vec::new())?)
    }

    pub(crate) fn freeze_home(&self, number: u64) -> Result<()> {
        self.driver.freeze(&self.home(number), &self.trash)?;
        self.flush_home(number)
    }

    /// A committed snapshot is durable when its record is: its files go to the disk first.
    pub(crate) fn flush_home(&self, number: u64) -> Result<()> {
        let home = self.home(number);
        let opened = fs::File::open(&home).map_err(|source| SnapshotError::io("open", &home, source))?;
        rustix::fs::syncfs(&opened).map_err(|errno| SnapshotError::io("sync", &home, errno.into()))
    }

    /// The home's files become a layer; where there is one of that chain already, the home goes.
    pub(crate) fn home_into_layer(&self, number: u64, chain_id: &ChainId, usage: Usage) -> Result<()> {
        let home = self.home(number);
        self.driver.freeze(&home, &self.trash)?;
        let path = home.join(LAYER_FILE);
        let seal = self.driver.seal(&home)?;
        let record = LayerRecord { size_bytes: usage.size_bytes, boot_id: self.boot_id.clone(), seal };
        let json =
            serde_json::to_vec(&record).map_err(|source| SnapshotError::Record { path: path.clone(), source })?;
        fs::write(&path, json).map_err(|source| SnapshotError::io("write", &path, source))?;
        let target = self.layer_home(chain_id);
        match fs::rename(&home, &target) {
            Ok(()) => {
                self.ledger.add(*chain_id, LayerSize { size_bytes: usage.size_bytes, disk_bytes: None });
                self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).insert(*chain_id);
                self.trash.wake();
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                self.trash.put(&home)
            }
            Err(source) => Err(SnapshotError::io("put in place", &target, source)),
        }
    }

    pub(crate) fn drop_home(&self, number: u64) -> Result<()> {
        self.trash.put(&self.home(number))
    }

    /// Numbers of all homes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn homes(&self) -> Result<BTreeSet<u64>> {
        Ok(names(&self.root.join("snapshots"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Whether a snapshot's files are there.
    pub fn has_place(&self, place: &Place) -> bool {
        match place {
            Place::Layer(chain_id) => self.has_layer(chain_id),
            Place::Own(number) => self.home_files(*number).exists(),
        }
    }

    /// Moves homes to the trash that no record names. Only while no snapshot is being made: at start, or with the snapshots locked.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sweep_homes(&self, known: &BTreeSet<u64>) -> Result<()> {
        self.homes()?.difference(known).try_for_each(|number| self.drop_home(*number))
    }

    fn home(&self, number: u64) -> PathBuf {
        self.root.join("snapshots").join(number.to_string())
    }
}
