//! The diff service: a packed layer into mounts, and what differs between two sets of mounts as a packed layer (S-116).

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_content::Expected;
use berth_rootfs::{OverlayRootfs, RootDir};
use berth_snapshot::{Mount, Place, rootfs_of_mounts};
use berth_types::{ChainId, Digest, Labels};
use sha2::Digest as _;

use super::Tenant;
use crate::compression::{self, Compression};
use crate::document::{chain_ids, layer_media_type};
use crate::{ImageError, Result, layer_apply, layer_pack, tree_diff};

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
        let found = writable_directory(mounts).and_then(|directory| Ok((self.active_at(&directory)?, directory)));
        let ((key, parent), directory) = match found {
            Ok(found) => found,
            Err(_) if self.is_active_elsewhere(mounts)? => return self.apply_elsewhere(blob, mounts),
            Err(error) => return Err(error),
        };
        // Of whole trees we cannot tell.
        let was_empty = self.store.snapshots.driver().is_layered()
            && std::fs::read_dir(&directory).map(|mut entries| entries.next().is_none()).unwrap_or(false);
        let source = self.open_blob(blob)?;
        let (compression, source) = compression::detect(source, "the layer")?;
        let failed = |source| ImageError::Io { operation: "read", object: format!("layer {blob}"), source };
        let mut hashed = Hashed {
            inner: compression::decoder(compression, source, self.store.expansion).map_err(failed)?,
            hasher: sha2::Sha256::new(),
            size_bytes: 0,
        };
        let is_merged_elsewhere =
            !self.store.snapshots.driver().is_layered() && !rootfs_of_mounts(mounts)?.lowers.is_empty();
        // An external snapshotter's overlay is seen as a whole tree by us, too.
        let into = if is_merged_elsewhere {
            RootDir::new(berth_snapshot_proxy::mount(mounts)?)
        } else {
            RootDir::open_host(&directory)?
        };
        if self.store.snapshots.driver().is_layered() {
            layer_apply::apply(&mut hashed, &into)?;
        } else {
            layer_apply::apply_merged(&mut hashed, &into)?;
        }
        std::io::copy(&mut hashed, &mut std::io::sink()).map_err(failed)?;
        let diff_id = Digest::from_bytes(hashed.hasher.finalize().into());
        let chain_id = match parent {
            None => Some(diff_id),
            Some(below) => below.map(|below| next_chain_id(&below, &diff_id)),
        };
        self.store.note_applied(self.name, &key, chain_id.filter(|_| was_empty));
        Ok(AppliedLayer { diff_id, size_bytes: hashed.size_bytes })
    }

    /// Into what an external snapshotter mounts: as into a whole tree, whatever it is made of.
    fn apply_elsewhere(&self, blob: &Digest, mounts: &[Mount]) -> Result<AppliedLayer> {
        let mount = berth_snapshot_proxy::mount(mounts)?;
        let into = RootDir::new(mount);
        let source = self.open_blob(blob)?;
        let (compression, source) = compression::detect(source, "the layer")?;
        let failed = |source| ImageError::Io { operation: "read", object: format!("layer {blob}"), source };
        let mut hashed = Hashed {
            inner: compression::decoder(compression, source, self.store.expansion).map_err(failed)?,
            hasher: sha2::Sha256::new(),
            size_bytes: 0,
        };
        layer_apply::apply_merged(&mut hashed, &into)?;
        std::io::copy(&mut hashed, &mut std::io::sink()).map_err(failed)?;
        Ok(AppliedLayer { diff_id: Digest::from_bytes(hashed.hasher.finalize().into()), size_bytes: hashed.size_bytes })
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
    rootfs_of_mounts(mounts)?
        .upper
        .ok_or_else(|| ImageError::Invalid { what: "mounts", why: "they are read-only".to_owned() })
}

/// How a created layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerFormat {
    Plain,
    Gzip,
    Zstd,
}

impl LayerFormat {
    pub fn media_type(self) -> &'static str {
        layer_media_type(match self {
            Self::Plain => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Zstd => Compression::Zstd,
        })
    }
}

/// A layer that was made of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedLayer {
    pub digest: Digest,
    pub size_bytes: u64,
    pub diff_id: Digest,
}

impl Tenant<'_> {
    /// What makes `upper` out of `lower`, as a layer blob of the tenant. No mounts at all as `lower` mean an empty tree. Where the upper is an
    /// overlay on just the lower only its upper directory is read, else both trees are walked. The same trees always give the same bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for mounts that are no overlay or bind mount, and for trees that fit into no layer.
    pub fn create_layer(
        &self,
        lower: &[Mount],
        upper: &[Mount],
        format: LayerFormat,
        labels: &Labels,
        lease: Option<&str>,
    ) -> Result<CreatedLayer> {
        let mut ingest = self.store.content.begin()?;
        let diff_id = self.pack(lower, upper, format, &mut ingest)?;
        let staged = ingest.finish(Expected::default())?;
        staged.flush()?;
        let (digest, size_bytes) = (staged.digest(), staged.size_bytes());
        let mut labels = labels.clone();
        labels.insert("containerd.io/uncompressed".to_owned(), diff_id.to_string());
        self.keep_blob(staged, &labels, lease)?;
        Ok(CreatedLayer { digest, size_bytes, diff_id })
    }

    fn pack(&self, lower: &[Mount], upper: &[Mount], format: LayerFormat, out: &mut dyn Write) -> Result<Digest> {
        let failed = |source| ImageError::Io { operation: "write", object: "the new layer".to_owned(), source };
        let compressed: Box<dyn Finish> = match format {
            LayerFormat::Plain => Box::new(Plain(out)),
            LayerFormat::Gzip => Box::new(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            LayerFormat::Zstd => Box::new(zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?),
        };
        let mut hashed = HashedWrite { inner: compressed, hasher: sha2::Sha256::new() };
        let mut buffered = std::io::BufWriter::with_capacity(256 << 10, &mut hashed);
        difference(lower, upper, &mut buffered)?;
        buffered.flush().map_err(failed)?;
        drop(buffered);
        let HashedWrite { inner, hasher } = hashed;
        inner.done().map_err(failed)?;
        Ok(Digest::from_bytes(hasher.finalize().into()))
    }
}

fn difference(lower: &[Mount], upper: &[Mount], out: &mut dyn Write) -> Result<()> {
    let upper = rootfs_of_mounts(upper)?;
    let lower = if lower.is_empty() { OverlayRootfs::default() } else { rootfs_of_mounts(lower)? };
    let is_on_lower = lower.upper.is_none() && lower.lowers == upper.lowers && !upper.lowers.is_empty();
    if let (true, Some(directory)) = (is_on_lower, &upper.upper) {
        return layer_pack::pack(directory, &upper.lowers, out);
    }
    // Reading only: the writable pair may be in use elsewhere.
    let mounted = |rootfs: &OverlayRootfs| -> Result<Option<(OwnedFd, PathBuf)>> {
        let lowers: Vec<PathBuf> = rootfs.upper.iter().chain(&rootfs.lowers).cloned().collect();
        if lowers.is_empty() {
            return Ok(None);
        }
        let mount = OverlayRootfs { lowers, ..OverlayRootfs::default() }.mount_detached()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
        Ok(Some((mount, path)))
    };
    let (lower, upper) = (mounted(&lower)?, mounted(&upper)?);
    let (_tree, upper) =
        upper.ok_or_else(|| ImageError::Invalid { what: "mounts", why: "there are none".to_owned() })?;
    tree_diff::pack(lower.as_ref().map(|(_, path)| path.as_path()), &upper, out)
}

/// A writer that has something to write at its end.
trait Finish: Write {
    fn done(self: Box<Self>) -> std::io::Result<()>;
}

struct Plain<'w>(&'w mut dyn Write);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Finish for Plain<'_> {
    fn done(self: Box<Self>) -> std::io::Result<()> {
        Ok(())
    }
}

impl Finish for flate2::write::GzEncoder<&mut dyn Write> {
    fn done(self: Box<Self>) -> std::io::Result<()> {
        self.finish().map(|_| ())
    }
}

impl Finish for zstd::Encoder<'static, &mut dyn Write> {
    fn done(self: Box<Self>) -> std::io::Result<()> {
        self.finish().map(|_| ())
    }
}

struct HashedWrite<'w> {
    inner: Box<dyn Finish + 'w>,
    hasher: sha2::Sha256,
}

impl Write for HashedWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
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
