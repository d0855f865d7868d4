//! Old copies of layers that were damaged and made again (`snapshot::replaced`): kept while somebody stands on them, whom only the engine knows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::MutexGuard;

use berth_types::{ChainId, Digest};

use crate::Result;
use crate::fsck::snapshots_on;
use crate::store::{Hook, ImageStore};

/// Ids of containers of an image.
pub type UsersOfImage = Box<dyn Fn(&Digest) -> Vec<String> + Send + Sync>;
/// Who may have a snapshot mounted, by tenant and key.
pub type UserOfSnapshot = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Who may stand on layers at the moment of the call. Called with the store locked.
pub struct LayerUsers {
    /// Those that run, or with which something is being done that may end so.
    pub of_image: UsersOfImage,
    /// As in [`crate::Uses`].
    pub of_snapshot: UserOfSnapshot,
}

impl fmt::Debug for LayerUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerUsers")
    }
}

impl ImageStore {
    /// From now on old copies of layers go when these users are gone; before, they stay. The first one stays.
    pub fn know_layer_users(&self, users: LayerUsers) {
        drop(self.users.set(users));
    }

    /// Lets go old copies of layers that nobody stands on any more.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn drop_replaced(&self) -> Result<()> {
        if self.snapshots.has_replaced() { self.let_go_replaced(&self.lock()) } else { Ok(()) }
    }

    pub(crate) fn let_go_replaced(&self, _changing: &MutexGuard<'_, ()>) -> Result<()> {
        let Some(users) = self.users.get() else { return Ok(()) };
        let images: Vec<(Digest, Vec<ChainId>)> =
            self.records()?.into_iter().map(|(id, record)| (id, record.chain_ids())).collect();
        let snapshots = self.snapshot_records()?;
        Ok(self.snapshots.drop_replaced(&|chain_id| {
            let on_it = images.iter().filter(|(_, chain)| chain.contains(chain_id));
            let mut found: BTreeSet<String> = on_it.flat_map(|(id, _)| (users.of_image)(id)).collect();
            for (tenant, key) in snapshots_on(&snapshots, chain_id) {
                found.extend((users.of_snapshot)(tenant, key).map(|_| format!("{tenant}/{key}")));
            }
            found
        })?)
    }

    /// Somebody went who may have been the last on an old copy: whoever collects is woken for [`Self::drop_replaced`].
    pub fn a_user_went(&self) {
        if let Some(Hook(wake)) = self.collector.get()
            && self.snapshots.has_replaced()
        {
            wake();
        }
    }
}
