//! Layers that were damaged and made again while somebody may stand on them: the new one takes the old one's place in one step, the old one is kept
//! aside, whole as it is, until nobody stands on it any more.
//!
//! What runs has the old files open below its mount and goes on with them; what starts gets the new ones. Who stands on a layer only the caller
//! knows: [`SnapshotStore::drop_replaced`] asks. Those who are on it when it is first asked are waited for; who came later came to the new one.
//!
//! Crashes: the new copy is moved to `replaced/` first and changes places from there, so that at no moment what somebody may stand on is among
//! what is swept. After a restart of the daemon it is asked anew; after one of the host nobody stands on anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_types::ChainId;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{PendingLayer, Result, SnapshotError, SnapshotStore, names};

/// Who was on an old copy when it was first asked, as far as they are still there; nothing: it was not asked yet.
type Waiting = Option<BTreeSet<String>>;

#[derive(Debug)]
pub(crate) struct Replaced {
    directory: PathBuf,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<String, Waiting>>,
}

impl Replaced {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let directory = root.join("replaced");
        let waiting: BTreeMap<String, Waiting> = names(&directory)?.into_iter().map(|name| (name, None)).collect();
        let numbers = waiting.keys().filter_map(|name| name.split_once('.')?.1.parse::<u64>().ok());
        let next = AtomicU64::new(numbers.max().map_or(0, |last| last + 1));
        Ok(Self { directory, next, waiting: Mutex::new(waiting) })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that nothing has.
    fn name(&self, chain_id: &ChainId) -> String {
        format!("{}.{}", chain_id.hex(), self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl SnapshotStore {
    /// As [`PendingLayer::commit`], in place of a layer that cannot be used and that somebody may stand on: that one is kept aside.
    ///
    /// # Errors
    /// What the kernel says; the old layer is where it was then.
    pub fn replace_layer(&self, mut pending: PendingLayer, size_bytes: u64) -> Result<()> {
        pending.complete(size_bytes)?;
        let name = self.replaced.name(&pending.chain_id);
        let aside = self.replaced.directory.join(&name);
        rename(&pending.home, &aside, RenameFlags::NOREPLACE)?;
        pending.home.clone_from(&aside);
        let is_kept = match rename(&aside, &pending.target, RenameFlags::EXCHANGE) {
            Ok(()) => true,
            Err(RenameFailed { errno: Errno::NOENT, .. }) => {
                rename(&aside, &pending.target, RenameFlags::NOREPLACE)?;
                false
            }
            // A file system without it: for a moment there is no layer, which a start in that moment is told.
            Err(RenameFailed { errno: Errno::INVAL | Errno::NOSYS, .. }) => {
                self.set_aside(&pending.chain_id)?;
                rename(&aside, &pending.target, RenameFlags::NOREPLACE)?;
                false
            }
            Err(error) => return Err(error.into()),
        };
        pending.placed(size_bytes);
        self.removals.fetch_add(1, Ordering::Release);
        self.driver.retire(&pending.target);
        if is_kept {
            self.replaced.waiting().insert(name, None);
        }
        Ok(())
    }

    /// Takes a layer out of its place that somebody may stand on.
    pub(crate) fn set_aside(&self, chain_id: &ChainId) -> Result<()> {
        let (home, name) = (self.layer_home(chain_id), self.replaced.name(chain_id));
        let aside = self.replaced.directory.join(&name);
        rename(&home, &aside, RenameFlags::NOREPLACE)?;
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).remove(chain_id);
        self.ledger.remove(chain_id);
        self.removals.fetch_add(1, Ordering::Release);
        self.driver.retire(&home);
        self.replaced.waiting().insert(name, None);
        Ok(())
    }

    /// Whether [`Self::drop_replaced`] has something to look after.
    pub fn has_replaced(&self) -> bool {
        !self.replaced.waiting().is_empty()
    }

    /// Lets go old copies of layers that nobody stands on any more. `users` tells who may stand on a layer now, old or new: each by a name that stays
    /// the same. Whoever is about to is one of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drop_replaced(&self, users: &dyn Fn(&ChainId) -> BTreeSet<String>) -> Result<()> {
        let names: Vec<String> = self.replaced.waiting().keys().cloned().collect();
        for name in names {
            let chain_id = name.split_once('.').and_then(|(hex, _)| ChainId::from_hex(hex).ok());
            let now = chain_id.map(|chain_id| users(&chain_id)).unwrap_or_default();
            let mut waiting = self.replaced.waiting();
            let Some(known) = waiting.get_mut(&name) else { continue };
            let left = match known.take() {
                Some(before) => &before & &now,
                None => now,
            };
            if !left.is_empty() {
                *known = Some(left);
                continue;
            }
            self.trash.put(&self.replaced.directory.join(&name))?;
            waiting.remove(&name);
        }
        Ok(())
    }
}

/// A rename that failed.
struct RenameFailed {
    path: PathBuf,
    errno: Errno,
}

impl From<RenameFailed> for SnapshotError {
    fn from(error: RenameFailed) -> Self {
        Self::io("put in place", &error.path, error.errno.into())
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> std::result::Result<(), RenameFailed> {
    renameat_with(CWD, from, CWD, to, flags).map_err(|errno| RenameFailed { path: to.to_owned(), errno })
}
