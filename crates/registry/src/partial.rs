//! A blob on its way from a registry: an ingest of the content store (see `berth_content::ResumableIngest`), and readers that follow its bytes.
//!
//! The ingests have a namespace that no client can name, and the digest as their reference. Whatever was kept of an earlier attempt: a blob is whole
//! only when its digest was found right. The last bytes are withheld from readers until then, so who reads to the end has read what the digest promises.
//! Where another host may be asked, wrong bytes are thrown away and come again as another edition: who read of the earlier one is told, and begins anew.
//!
//! Lock: `state`, held for moments, never across I/O of the blob.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use berth_content::{ContentError, ContentStore, Expected, ResumableIngest};
use berth_types::Digest;
use parking_lot::{Condvar, Mutex};
use sha2::Digest as _;

use crate::download::Fetch;
use crate::{RegistryError, Result};

/// Readers learn of new bytes, and are denied the last ones, in pieces of this size.
pub(crate) const PIECE_BYTES: u64 = 64 << 10;
/// Flushed in steps of this many bytes.
const FLUSH_BYTES: u64 = 64 << 20;
/// What nobody came back for is thrown away.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Not a name that a namespace of containerd's API may have.
const NAMESPACE: &str = ".fetch";

/// The partial blobs of one content store.
#[derive(Debug)]
pub struct Partials {
    content: Arc<ContentStore>,
    pub(crate) active: Mutex<HashMap<Digest, Weak<Fetch>>>,
    /// A fetch that was given up may still hold its ingest for a moment: the next one shares it.
    ingests: Mutex<HashMap<Digest, Weak<ResumableIngest>>>,
}

/// See the module.
#[derive(Debug)]
pub struct Partial {
    digest: Digest,
    size: u64,
    /// There are bytes of an earlier attempt, or several hosts to ask.
    pub(crate) may_come_again: bool,
    ingest: Arc<ResumableIngest>,
    state: Mutex<State>,
    changed: Condvar,
    done: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    /// Bytes of all ranges that came.
    received: u64,
    /// Bytes from the start without a gap.
    contiguous: u64,
    /// The same when readers were last told.
    told: u64,
    /// How often what came was wrong and is coming again.
    edition: u64,
    outcome: Option<std::result::Result<(), Arc<RegistryError>>>,
}

impl Partials {
    /// Throws away what is older than a week.
    ///
    /// # Errors
    /// When the store's ingests cannot be read or removed.
    pub fn open(content: Arc<ContentStore>) -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest = i64::try_from(now.saturating_sub(KEPT_FOR).as_nanos()).unwrap_or(0);
        for status in content.ingest_statuses(Some(NAMESPACE))?.iter().filter(|s| s.updated.0 < oldest) {
            content.abort(NAMESPACE, &status.reference)?;
        }
        Ok(Self { content, active: Mutex::default(), ingests: Mutex::default() })
    }

    /// Bytes that need not be fetched again, when a fetch of this blob was interrupted.
    pub fn kept_bytes(&self, digest: &Digest, size: u64) -> u64 {
        if let Some(fetch) = self.active.lock().get(digest).and_then(Weak::upgrade) {
            return fetch.partial().received_bytes();
        }
        let status = self.content.ingest_status(NAMESPACE, &digest.to_string());
        status.ok().filter(|status| status.total == Some(size)).map_or(0, |status| status.bytes)
    }

    /// The blob has a place elsewhere now: its ingest is not needed any more. Who still reads it can go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        if let Some(ingest) = self.ingests.lock().remove(digest).and_then(|known| known.upgrade()) {
            return Ok(ingest.retire()?);
        }
        match self.content.abort(NAMESPACE, &digest.to_string()) {
            Err(ContentError::NoIngest { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    pub(crate) fn begin(&self, digest: &Digest, size: u64) -> Result<Partial> {
        let ingest = self.ingest(digest, size)?;
        let (contiguous, received) = ingest.extent();
        // It may be long until its turn comes.
        ingest.rest()?;
        let state = Mutex::new(State { received, contiguous, told: contiguous, edition: 0, outcome: None });
        let (changed, done) = (Condvar::new(), tokio::sync::Notify::new());
        Ok(Partial { digest: *digest, size, may_come_again: false, ingest, state, changed, done })
    }

    fn ingest(&self, digest: &Digest, size: u64) -> Result<Arc<ResumableIngest>> {
        let mut ingests = self.ingests.lock();
        ingests.retain(|_, known| known.strong_count() > 0);
        let known = ingests.get(digest).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.status().total == Some(size)) {
            return Ok(known);
        }
        let reference = digest.to_string();
        // Another size is another blob, whatever its digest is said to be.
        if self.content.ingest_status(NAMESPACE, &reference).is_ok_and(|status| status.total != Some(size)) {
            self.content.abort(NAMESPACE, &reference)?;
        }
        let expected = Expected { digest: Some(*digest), size_bytes: Some(size) };
        let ingest = Arc::new(self.content.resume(NAMESPACE, &reference, expected)?);
        ingests.insert(*digest, Arc::downgrade(&ingest));
        Ok(ingest)
    }
}

impl Partial {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Where the bytes are.
    pub fn path(&self) -> PathBuf {
        self.ingest.path()
    }

    pub fn received_bytes(&self) -> u64 {
        self.state.lock().received
    }

    pub fn is_verified(&self) -> bool {
        matches!(self.state.lock().outcome, Some(Ok(())))
    }

    /// All bytes came; their digest may still be taken.
    pub fn is_complete(&self) -> bool {
        self.state.lock().contiguous == self.size
    }

    /// Byte ranges that are missing, in order.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        self.ingest.missing(self.size)
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.ingest.write_at(offset, bytes)?;
        let (contiguous, received) = self.ingest.extent();
        let mut state = self.state.lock();
        // Another writer may have been here with more.
        state.received = state.received.max(received);
        state.contiguous = state.contiguous.max(contiguous);
        if state.contiguous - state.told >= PIECE_BYTES || state.contiguous == self.size {
            state.told = state.contiguous;
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// A reader of its own from the first byte; it waits for bytes that have not come yet.
    pub fn reader(self: &Arc<Self>) -> PartialReader {
        PartialReader { partial: Arc::clone(self), at: 0, edition: self.edition(), is_withheld: true }
    }

    /// Counts how often what came was wrong and comes again.
    pub fn edition(&self) -> u64 {
        self.state.lock().edition
    }

    /// Whether bytes of this edition were wrong, so that who read them begins again. Waits until that is known, where others may come in their place
    /// and somebody wants to know. Blocks.
    pub fn was_wrong(&self, edition: u64, is_wanted: &dyn Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        while state.edition == edition {
            if state.outcome.is_some() || !self.may_come_again || !is_wanted() {
                return false;
            }
            self.changed.wait(&mut state);
        }
        true
    }

    /// What came is wrong: it is thrown away, and who read of it learns that. Nobody writes to it now.
    pub(crate) fn restart(&self) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.edition += 1;
            (state.received, state.contiguous, state.told) = (0, 0, 0);
        }
        self.changed.notify_all();
        Ok(self.ingest.restart()?)
    }

    /// Follows the bytes to the end and takes their digest; what came is flushed on the way. Blocks.
    pub(crate) fn verify(self: &Arc<Self>) -> Result<()> {
        let mut reader =
            PartialReader { partial: Arc::clone(self), at: 0, edition: self.edition(), is_withheld: false };
        let mut hasher = sha2::Sha256::new();
        let mut piece = vec![0; 256 << 10];
        let mut flushed = 0;
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => hasher.update(&piece[..n]),
                Err(_) if self.is_failed() => return Err(RegistryError::GivenUp { digest: self.digest }),
                Err(e) => return Err(RegistryError::io("read", &self.path(), e)),
            }
            if reader.at - flushed >= FLUSH_BYTES {
                self.ingest.sync()?;
                flushed = reader.at;
            }
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != self.digest {
            let what = format!("blob {}", self.digest.short());
            return Err(RegistryError::WrongDigest { what, expected: self.digest, found });
        }
        // It is adopted next, and its journal goes: the bytes alone have to be on the disk.
        Ok(self.ingest.flush_data()?)
    }

    /// Nobody writes to it any more: its files are open again while somebody reads.
    pub(crate) fn rest(&self) {
        if let Err(error) = self.ingest.rest() {
            tracing::debug!(digest = %self.digest, "cannot note what came: {}", berth_types::report(&error));
        }
    }

    /// Why the bytes will not come.
    pub fn failure(&self) -> Option<RegistryError> {
        match &self.state.lock().outcome {
            Some(Err(error)) => Some(RegistryError::Shared(Arc::clone(error))),
            _ => None,
        }
    }

    fn is_failed(&self) -> bool {
        matches!(self.state.lock().outcome, Some(Err(_)))
    }

    /// The first outcome counts; everybody who waits learns it.
    pub(crate) fn settle(&self, outcome: Result<()>) {
        self.state.lock().outcome.get_or_insert(outcome.map_err(Arc::new));
        self.changed.notify_all();
        self.done.notify_waiters();
    }

    /// Waits like [`Self::verified`], on a thread that may block.
    ///
    /// # Errors
    /// Why the bytes did not come.
    pub fn wait_verified(&self) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone().map_err(RegistryError::Shared);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits until all bytes came and have their digest.
    ///
    /// # Errors
    /// Why they did not.
    pub async fn verified(&self) -> Result<()> {
        loop {
            let notified = self.done.notified();
            if let Some(outcome) = &self.state.lock().outcome {
                return outcome.clone().map_err(RegistryError::Shared);
            }
            notified.await;
        }
    }
}

/// Follows a [`Partial`]; at its end the digest was found right.
#[derive(Debug)]
pub struct PartialReader {
    partial: Arc<Partial>,
    at: u64,
    edition: u64,
    is_withheld: bool,
}

/// The reader's bytes are no good; others come.
#[derive(Debug, thiserror::Error)]
#[error("what came of {digest} so far is wrong and comes again")]
struct WrongSoFar {
    digest: Digest,
}

impl PartialReader {
    /// How far can be read now; waits until that is further than we are.
    fn limit(&self) -> io::Result<u64> {
        let partial = &self.partial;
        let mut state = partial.state.lock();
        loop {
            if state.edition != self.edition {
                return Err(io::Error::other(WrongSoFar { digest: partial.digest }));
            }
            let is_verified = match &state.outcome {
                Some(Err(error)) => return Err(io::Error::other(RegistryError::Shared(Arc::clone(error)))),
                Some(Ok(())) => true,
                None => false,
            };
            let is_all_readable = is_verified || !self.is_withheld;
            let readable = if is_all_readable { partial.size } else { partial.size.saturating_sub(PIECE_BYTES) };
            let limit = state.contiguous.min(readable);
            if limit > self.at || (is_all_readable && limit == partial.size) {
                return Ok(limit);
            }
            partial.changed.wait(&mut state);
        }
    }
}

impl Drop for PartialReader {
    fn drop(&mut self) {
        if self.partial.is_verified() {
            self.partial.rest();
        }
    }
}

impl Read for PartialReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.limit()? - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let n = self.partial.ingest.read_at(self.at, &mut buffer[..len]).map_err(io::Error::other)?;
        if n == 0 && len > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
