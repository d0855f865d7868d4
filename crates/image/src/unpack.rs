//! Second pass: layers of staged blobs become layer directories. Each layer is read, decompressed and hashed by one thread and written to its
//! directory by another; up to two layers at once. A layer is accepted only when its bytes have the diff id the config names. Where bytes of a layer on
//! its way turn out wrong and come again from elsewhere, its unpacking begins again in a directory of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_content::{ContentStore, Staged};
use berth_rootfs::RootDir;
use berth_snapshot::{ErofsWriter, ImageMemory, PendingLayer, SnapshotStore};
use berth_types::Digest;
use sha2::Digest as _;

use crate::compression::{self, Compression, Expansion, Window};
use crate::pull::LayerSource;
use crate::{ImageError, ProgressFn, Result};
use crate::{layer_apply, layer_image};

const LAYERS_AT_ONCE: usize = 2;
/// Decompressed bytes on their way from the reading to the writing thread, per layer: `PIECES` of `PIECE_BYTES`.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 6;
/// Progress is told in steps of this many packed bytes.
const PROGRESS_BYTES: u64 = 512 << 10;

/// One layer to unpack, or only to verify when its directory is there already.
pub(crate) struct Task<'t> {
    pub(crate) packed: Packed<'t>,
    pub(crate) compression: Compression,
    pub(crate) diff_id: Digest,
    pub(crate) chain_id: Digest,
    /// The layer it is on.
    pub(crate) below: Option<Digest>,
    pub(crate) is_unpacked_already: bool,
}

/// Where a packed layer is.
#[derive(Clone, Copy)]
pub(crate) enum Packed<'p> {
    /// Written and hashed by this process just now.
    Staged(&'p Staged),
    /// In the store, verified before it is given.
    Kept(&'p ContentStore, Digest),
    /// On its way: blob and size. Whoever reads it to the end has read what the digest promises.
    Arriving(&'p dyn LayerSource, Digest, u64),
}

impl Packed<'_> {
    fn digest(&self) -> Digest {
        match self {
            Self::Staged(staged) => staged.digest(),
            Self::Kept(_, digest) | Self::Arriving(_, digest, _) => *digest,
        }
    }

    fn size_bytes(&self) -> Result<u64> {
        match self {
            Self::Staged(staged) => Ok(staged.size_bytes()),
            Self::Kept(content, digest) => Ok(content.size(digest)?),
            Self::Arriving(_, _, size_bytes) => Ok(*size_bytes),
        }
    }

    fn reader(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Staged(staged) => Ok(Box::new(staged.reader()?)),
            Self::Kept(content, digest) => Ok(Box::new(content.reader(digest)?)),
            Self::Arriving(source, digest, _) => source.open(digest).map_err(|source| ImageError::Io {
                operation: "fetch",
                object: format!("layer {digest}"),
                source,
            }),
        }
    }
}

impl Packed<'_> {
    fn edition(&self) -> u64 {
        match self {
            Self::Arriving(source, digest, _) => source.edition(digest),
            Self::Staged(_) | Self::Kept(..) => 0,
        }
    }

    fn was_wrong(&self, edition: u64, is_cancelled: &AtomicBool) -> bool {
        let is_wanted = || !is_cancelled.load(Ordering::Relaxed);
        matches!(self, Self::Arriving(source, digest, _) if source.was_wrong(digest, edition, &is_wanted))
    }
}

/// A layer whose files are complete but not yet in the store.
pub(crate) struct Unpacked {
    pub(crate) chain_id: Digest,
    pub(crate) pending: PendingLayer,
    pub(crate) size_bytes: u64,
}

/// Where a layer's files go.
enum Target {
    Directory(RootDir),
    Image(Box<ErofsWriter>),
}

impl Target {
    fn of(pending: &PendingLayer, memory: &ImageMemory) -> Result<Self> {
        let Some(path) = pending.image_file() else { return Ok(Self::Directory(RootDir::open_host(pending.dir())?)) };
        let image = File::create_new(&path).and_then(|file| ErofsWriter::new(file, memory));
        Ok(Self::Image(Box::new(image.map_err(|source| image_failed(&path, source))?)))
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Image(image) => match image.finish() {
                Ok(_) => Ok(()),
                Err(source) => Err(image_failed(Path::new("of the layer"), source)),
            },
        }
    }
}

fn image_failed(path: &Path, source: io::Error) -> ImageError {
    ImageError::Io { operation: "write the image", object: path.display().to_string(), source }
}

pub(crate) struct Unpacker<'u> {
    snapshots: &'u SnapshotStore,
    expansion: Expansion,
    progress: ProgressFn<'u>,
    /// Of the images that are written at the same time.
    memory: ImageMemory,
    /// Held by who decodes with a large window: one at a time.
    wide: Mutex<()>,
}

impl<'u> Unpacker<'u> {
    pub(crate) fn new(snapshots: &'u SnapshotStore, expansion: Expansion, progress: ProgressFn<'u>) -> Self {
        Self { snapshots, expansion, progress, memory: ImageMemory::default(), wide: Mutex::new(()) }
    }

    /// Unpacks all or fails; what was unpacked before a failure is discarded.
    pub(crate) fn run(&self, tasks: Vec<Task<'_>>) -> Result<Vec<Unpacked>> {
        let is_layered = self.snapshots.driver().is_layered();
        let threads = if is_layered { tasks.len().min(LAYERS_AT_ONCE) } else { tasks.len().min(1) };
        let queue = Mutex::new(VecDeque::from(tasks));
        let is_cancelled = AtomicBool::new(false);
        let outcomes: Vec<Result<Vec<Unpacked>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work(&queue, &is_cancelled))).collect();
            workers.into_iter().map(|w| w.join().unwrap_or(Err(ImageError::Cancelled))).collect()
        });
        let mut unpacked = Vec::new();
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(layers) => unpacked.extend(layers),
                Err(ImageError::Cancelled) => failure = failure.or(Some(ImageError::Cancelled)),
                Err(reason) => failure = Some(reason),
            }
        }
        failure.map_or(Ok(unpacked), Err)
    }

    fn work(&self, queue: &Mutex<VecDeque<Task<'_>>>, is_cancelled: &AtomicBool) -> Result<Vec<Unpacked>> {
        let mut done = Vec::new();
        loop {
            let task = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(task) = task else {
                return Ok(done);
            };
            match self.one(&task, &done, is_cancelled) {
                Ok(unpacked) => done.extend(unpacked),
                // Only the first failure is told: the others may come from being told to stop.
                Err(_) if is_cancelled.swap(true, Ordering::Relaxed) => return Err(ImageError::Cancelled),
                Err(error) => return Err(error),
            }
        }
    }

    fn one(&self, task: &Task<'_>, done: &[Unpacked], is_cancelled: &AtomicBool) -> Result<Option<Unpacked>> {
        loop {
            let edition = task.packed.edition();
            let outcome = self.attempt(task, done, is_cancelled);
            // What has its diff id is right whoever brought it. That of a layer that is not packed was never taken, and its archive may end early.
            let is_proven = outcome.is_ok() && task.compression != Compression::None;
            if is_proven || !task.packed.was_wrong(edition, is_cancelled) {
                return outcome;
            }
            tracing::debug!(layer = %task.packed.digest(), "its bytes were wrong and come again: it is unpacked anew");
        }
    }

    fn attempt(&self, task: &Task<'_>, done: &[Unpacked], is_cancelled: &AtomicBool) -> Result<Option<Unpacked>> {
        if task.compression == Compression::None {
            check_diff_id(task, task.packed.digest())?;
            if task.is_unpacked_already {
                return Ok(None);
            }
        }
        let shown = task.diff_id.short();
        let source = || {
            Ok::<_, ImageError>(Watched {
                inner: task.packed.reader()?,
                is_cancelled,
                progress: self.progress,
                shown: &shown,
                total: task.packed.size_bytes()?,
                read: 0,
                told: 0,
            })
        };
        if task.is_unpacked_already {
            let found = self.hash_only(task, source()?)?;
            check_diff_id(task, found)?;
            return Ok(None);
        }
        let mut pending = self.snapshots.begin_layer_on(&task.chain_id, self.below(task, done).as_deref())?;
        let filled = self.fill(task, source()?, Target::of(&pending, &self.memory)?);
        let size_bytes = match filled {
            // Very many files: as a directory it takes no memory.
            Err(ImageError::ImageMemory) => {
                pending.give_up_image()?;
                self.fill(task, source()?, Target::Directory(RootDir::open_host(pending.dir())?))?
            }
            other => other?,
        };
        Ok(Some(Unpacked { chain_id: task.chain_id, pending, size_bytes }))
    }

    fn fill(&self, task: &Task<'_>, source: Watched<'_>, mut target: Target) -> Result<u64> {
        let size_bytes = match task.compression {
            // Its digest was taken when it was staged and is its diff id.
            Compression::None => {
                self.apply(&mut BufReader::with_capacity(PIECE_BYTES, source), &mut target)?.size_bytes
            }
            _ => self.decompress_and_apply(task, source, &mut target)?,
        };
        target.finish()?;
        Ok(size_bytes)
    }

    fn apply(&self, tar: &mut dyn Read, target: &mut Target) -> Result<layer_apply::Applied> {
        match target {
            Target::Image(image) => layer_image::apply(tar, image),
            Target::Directory(root) if self.snapshots.driver().is_layered() => layer_apply::apply(tar, root),
            Target::Directory(root) => layer_apply::apply_merged(tar, root),
        }
    }

    /// The files of the layer below, which may have been unpacked just before this one.
    fn below(&self, task: &Task<'_>, done: &[Unpacked]) -> Option<PathBuf> {
        let below = task.below.filter(|_| !self.snapshots.driver().is_layered())?;
        let just_now = done.iter().find(|unpacked| unpacked.chain_id == below);
        Some(just_now.map_or_else(|| self.snapshots.lower(&below), |unpacked| unpacked.pending.lower()))
    }

    fn decompress_and_apply(&self, task: &Task<'_>, source: impl Read + Send, target: &mut Target) -> Result<u64> {
        std::thread::scope(|scope| {
            let (full, pieces) = sync_channel(PIECES);
            let (empty, recycled) = sync_channel(PIECES + 1);
            let reading = scope.spawn(|| self.decompress(task, source, full, recycled));
            let mut tar = Pieces { pieces, empty, current: Vec::new(), at: 0 };
            let applied = self.apply(&mut tar, target);
            let drained = applied.and_then(|applied| {
                // The diff id is of all bytes, also of those behind the end marker.
                io::copy(&mut tar, &mut io::sink()).map_err(ImageError::reading_archive)?;
                Ok(applied)
            });
            drop(tar);
            let hashed = reading.join().unwrap_or(Err(ImageError::Cancelled));
            // A damaged stream ends early for the one who applies it: the reading side knows why.
            match (hashed, drained) {
                (Ok(Some(found)), Ok(applied)) => check_diff_id(task, found).map(|()| applied.size_bytes),
                (Ok(None), Ok(_)) => Err(ImageError::Cancelled),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            }
        })
    }

    /// Returns the digest of the whole content; `None` when the other side gave up.
    fn decompress(
        &self,
        task: &Task<'_>,
        source: impl Read + Send,
        full: SyncSender<Vec<u8>>,
        recycled: Receiver<Vec<u8>>,
    ) -> Result<Option<Digest>> {
        let failed = |e| unreadable(task, e);
        let (window, source) = compression::window(task.compression, source).map_err(failed)?;
        let _alone = self.alone(window);
        let mut decoder = compression::decoder_of(task.compression, window, source, self.expansion).map_err(failed)?;
        let mut hasher = sha2::Sha256::new();
        loop {
            let mut piece = recycled.try_recv().unwrap_or_default();
            piece.resize(PIECE_BYTES, 0);
            let len = fill(&mut decoder, &mut piece).map_err(failed)?;
            if len == 0 {
                return Ok(Some(Digest::from_bytes(hasher.finalize().into())));
            }
            piece.truncate(len);
            hasher.update(&piece);
            if full.send(piece).is_err() {
                return Ok(None);
            }
        }
    }

    fn alone(&self, window: Window) -> Option<MutexGuard<'_, ()>> {
        (window == Window::Wide).then(|| self.wide.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hash_only(&self, task: &Task<'_>, source: impl Read + Send) -> Result<Digest> {
        let failed = |e| unreadable(task, e);
        let (window, source) = compression::window(task.compression, source).map_err(failed)?;
        let _alone = self.alone(window);
        let mut decoder = compression::decoder_of(task.compression, window, source, self.expansion).map_err(failed)?;
        let mut hasher = sha2::Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match fill(&mut decoder, &mut piece).map_err(failed)? {
                0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
                len => hasher.update(&piece[..len]),
            }
        }
    }
}

fn unreadable(task: &Task<'_>, source: io::Error) -> ImageError {
    if source.get_ref().is_some_and(|inner| inner.is::<CancelledRead>()) {
        return ImageError::Cancelled;
    }
    // The decoders report damage under several kinds; whatever it is, it is the input that is bad.
    let source = io::Error::new(io::ErrorKind::InvalidData, source);
    ImageError::Io { operation: "decompress", object: format!("layer {}", task.packed.digest()), source }
}

fn check_diff_id(task: &Task<'_>, found: Digest) -> Result<()> {
    if found == task.diff_id {
        return Ok(());
    }
    let what = format!("the content of layer {}", task.packed.digest());
    Err(ImageError::WrongDigest { what, expected: task.diff_id, found })
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match source.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

#[derive(Debug, thiserror::Error)]
#[error("another layer failed")]
struct CancelledRead;

/// The blob, read with progress and until the load is cancelled.
struct Watched<'w> {
    inner: Box<dyn Read + Send>,
    is_cancelled: &'w AtomicBool,
    progress: ProgressFn<'w>,
    shown: &'w str,
    total: u64,
    read: u64,
    told: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other(CancelledRead));
        }
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        if self.read - self.told >= PROGRESS_BYTES || (self.read == self.total && self.told < self.total) {
            self.told = self.read;
            (self.progress)(self.shown, "Loading layer", Some(self.read), Some(self.total));
        }
        Ok(n)
    }
}

/// The receiving end of the pieces, as a reader.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            let Ok(next) = self.pieces.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.current, next);
            self.at = 0;
            // A full return queue only means that the piece is not used again.
            drop(self.empty.try_send(used));
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
