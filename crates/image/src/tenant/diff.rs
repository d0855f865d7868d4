//! The diff service: a packed layer into mounts, and what differs between two sets of mounts as a packed layer (S-116).

use std::io::Read;
use std::path::{Path, PathBuf};

use berth_rootfs::RootDir;
use berth_snapshot::{Mount, Place};
use berth_types::{ChainId, Digest};
use sha2::Digest as _;

use super::Tenant;
use crate::compression;
use crate::document::chain_ids;
use crate::layer_apply;
use crate::{ImageError, Result};

/// What applying a layer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedLayer {
    /// Of the whole uncompressed content.
    pub diff_id: Digest,
    /// Of the uncompressed content.
    pub size_bytes: u64,
}

impl Tenant<'_> {
    /// Unpacks a layer blob into the writable directory of an active snapshot's mounts. What is compressed, and how, is told by its bytes.
    ///
    /// # Errors
    /// `NotFound` for the blob; `InvalidArgument` for mounts that are not those of an active snapshot here, and for a bad layer.
    pub fn apply_layer(&self, blob: &Digest, mounts: &[Mount]) -> Result<AppliedLayer> {
        let directory = writable_directory(mounts)?;
        let (key, parent) = self.active_at(&directory)?;
        let was_empty = std::fs::read_dir(&directory).map(|mut entries| entries.next().is_none()).unwrap_or(false);
        let source = self.open_blob(blob)?;
        let (compression, source) = compression::detect(source, "the layer")?;
        let failed = |source| ImageError::Io { operation: "read", object: format!("layer {blob}"), source };
        let mut hashed = Hashed {
            inner: compression::decoder(compression, source, self.store.expansion).map_err(failed)?,
            hasher: sha2::Sha256::new(),
            size_bytes: 0,
        };
        layer_apply::apply(&mut hashed, &RootDir::open_host(&directory)?)?;
        std::io::copy(&mut hashed, &mut std::io::sink()).map_err(failed)?;
        let diff_id = Digest::from_bytes(hashed.hasher.finalize().into());
        let chain_id = match parent {
            None => Some(diff_id),
            Some(below) => below.map(|below| next_chain_id(&below, &diff_id)),
        };
        self.store.note_applied(self.name, &key, chain_id.filter(|_| was_empty));
        Ok(AppliedLayer { diff_id, size_bytes: hashed.size_bytes })
    }

    /// The active snapshot whose files are in a directory, and the layer its parent is: `None` without a parent, `Some(None)` when the parent is
    /// no layer of the store.
    #[expect(clippy::option_option, reason = "no parent, and a parent that is no layer, are two things")]
    fn active_at(&self, directory: &Path) -> Result<(String, Option<Option<ChainId>>)> {
        let snapshots = self.snapshots();
        for info in snapshots.local().walk_all()? {
            if info.1.kind == berth_snapshot::Kind::Active
                && snapshots.local().writable_dir(&info.0).is_ok_and(|found| found == directory)
            {
                let parent = info.1.parent.as_deref().map(|parent| {
                    let place = snapshots.local().place(parent).ok()?;
                    if let Place::Layer(chain_id) = place { Some(chain_id) } else { None }
                });
                return Ok((info.0, parent));
            }
        }
        let why = format!("{} is not the directory of an active snapshot of this tenant", directory.display());
        Err(ImageError::Invalid { what: "mounts", why })
    }
}

fn next_chain_id(below: &ChainId, diff_id: &Digest) -> ChainId {
    // The chain id of two "layers" of which the lower has the chain id itself.
    chain_ids(&[*below, *diff_id])[1]
}

/// The one directory that writing to the mounts writes to.
fn writable_directory(mounts: &[Mount]) -> Result<PathBuf> {
    let invalid = |why: &str| ImageError::Invalid { what: "mounts", why: why.to_owned() };
    let [mount] = mounts else { return Err(invalid("exactly one is expected")) };
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    match mount.kind.as_str() {
        "overlay" => option("upperdir=").map(PathBuf::from).ok_or_else(|| invalid("the overlay is read-only")),
        "bind" if option("ro").is_none() => Ok(PathBuf::from(&mount.source)),
        "bind" => Err(invalid("the mount is read-only")),
        _ => Err(invalid("an overlay or a bind mount is expected")),
    }
}

struct Hashed<R> {
    inner: R,
    hasher: sha2::Sha256,
    size_bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size_bytes += n as u64;
        Ok(n)
    }
}
