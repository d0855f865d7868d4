//! `pull`: what a registry has under a name becomes an image here.
//!
//! resolve (HEAD, manifest, platform, config) → plan (what is shared, what must come, is there space) → fetch and unpack together → one commit.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use berth_image::{Incoming, PullPlan, RemoteDocument, TargetPlatform};
use berth_registry::{Credentials, Fetched, Partial, Session};
use berth_types::{ByteCount, Digest, ErrorClass, Reference};
use tokio::sync::mpsc;

use crate::api::{Progress, PullOutcome, PullPlanView, PullRequest};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::transfer::{Board, FetchSource, Flight, FlightKey, FlightState, free_bytes, require_space};

/// Indexes in indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// image-spec sets no limit; the image store's own is the same.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
const TICK: Duration = Duration::from_millis(100);
/// Of one name, with `--all-tags`.
const TAGS_MAX: usize = 1000;

/// Clients learn also of a pull that ended in a way nobody foresaw.
struct SettleAtEnd(Arc<FlightState>);

impl Drop for SettleAtEnd {
    fn drop(&mut self) {
        self.0.settle(Err(EngineError::internal("the pull ended early")));
    }
}

/// Everything known before a layer is fetched.
struct Resolved {
    incoming: Incoming,
    /// Of what the name stands for: an index when it is one.
    digest: Digest,
}

impl Engine {
    /// Pulls one name, or all tags of a repository. Identical pulls under way are one. Progress comes in Docker's words.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `Unavailable`, `DataLoss` of the registry; `ResourceExhausted` when there is no space.
    pub async fn pull(&self, request: PullRequest, progress: mpsc::Sender<Progress>) -> Result<Vec<PullOutcome>> {
        let reference = parse(&request.name)?;
        let platform = platform(request.platform.as_deref())?;
        if !request.all_tags {
            let reference = reference.with_default_tag();
            return Ok(vec![self.pull_one(reference, platform, request.credentials, &progress).await?]);
        }
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(EngineError::invalid("a tag cannot be used with --all-tags"));
        }
        let session = self.inner.transfers.session(&reference, request.credentials.clone())?;
        let tags = self.inner.transfers.run(async move { Ok(session.tags().await?) }).await?;
        if tags.len() > TAGS_MAX {
            let why =
                format!("{} has {} tags; at most {TAGS_MAX} are pulled at once", reference.familiar(), tags.len());
            return Err(EngineError::invalid(why));
        }
        let mut outcomes = Vec::new();
        for tag in tags {
            let one: Reference = format!("{}:{tag}", reference.repository()).parse()?;
            outcomes.push(self.pull_one(one, platform.clone(), request.credentials.clone(), &progress).await?);
        }
        Ok(outcomes)
    }

    /// What a pull would do, without doing it.
    ///
    /// # Errors
    /// As for [`Self::pull`].
    pub async fn plan_pull(&self, request: PullRequest) -> Result<PullPlanView> {
        let reference = parse(&request.name)?.with_default_tag();
        let platform = platform(request.platform.as_deref())?;
        let session = self.inner.transfers.session(&reference, request.credentials)?;
        let engine = self.clone();
        self.inner
            .transfers
            .run(async move {
                let resolved = resolve(&session, &reference, &platform).await?;
                let plan = engine.inner.images.plan_pull(&resolved.incoming)?;
                engine.plan_view(&session, &reference, &resolved, &plan)
            })
            .await
    }

    /// Joins the same pull when it is under way, else starts it.
    async fn pull_one(
        &self,
        reference: Reference,
        platform: TargetPlatform,
        credentials: Credentials,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PullOutcome> {
        let key = FlightKey { reference, platform: platform.to_string(), credentials };
        let flight = self.flight(key, platform)?;
        let gone = || EngineError::new(ErrorClass::Aborted, "the client is gone");
        if !flight.board.follow(progress, flight.done()).await {
            return Err(gone());
        }
        flight.outcome().unwrap_or_else(|| Err(gone()))
    }

    fn flight(&self, key: FlightKey, platform: TargetPlatform) -> Result<Arc<Flight>> {
        let transfers = &self.inner.transfers;
        let session = transfers.session(&key.reference, key.credentials.clone())?;
        let handle = transfers.handle()?;
        let mut flights = transfers.flights.lock();
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(known) = flights.get(&key).and_then(Weak::upgrade).filter(|flight| !flight.is_done()) {
            return Ok(known);
        }
        let (board, state) = (Arc::new(Board::new()), FlightState::new());
        let (engine, reference) = (self.clone(), key.reference.clone());
        let (told, ours) = (Arc::clone(&board), Arc::clone(&state));
        let job = handle.spawn(async move {
            let _settling = SettleAtEnd(Arc::clone(&ours));
            let outcome = engine.fly(&session, &reference, &platform, &told, &ours).await;
            ours.settle(outcome);
        });
        let flight = Arc::new(Flight::new(board, state, job.abort_handle()));
        flights.insert(key, Arc::downgrade(&flight));
        Ok(flight)
    }

    /// The pull itself, on the transfer thread.
    async fn fly(
        &self,
        session: &Arc<Session>,
        reference: &Reference,
        platform: &TargetPlatform,
        board: &Arc<Board>,
        state: &Arc<FlightState>,
    ) -> Result<PullOutcome> {
        let slot = Arc::clone(&self.inner.transfers.slots).acquire_owned().await;
        let slot = slot.map_err(|_| EngineError::internal("the engine is ending"))?;
        if let Some(digest) = self.is_current(session, reference, platform).await? {
            board.line(tag_or_digest(reference), pulling_from(reference));
            return Ok(self.tell_outcome(board, reference, digest, false));
        }
        let resolved = resolve(session, reference, platform).await?;
        self.inner.faults.check("pull.resolve")?;
        board.line(tag_or_digest(reference), pulling_from(reference));
        let Resolved { incoming, digest } = resolved;
        let plan = self.inner.images.plan_pull(&incoming)?;
        self.check_space(&plan)?;
        self.inner.faults.check("pull.plan")?;
        let (id, engine) = (incoming.id(), self.clone());
        let (session, board, state) = (Arc::clone(session), Arc::clone(board), Arc::clone(state));
        let told = Arc::clone(&board);
        let working = tokio::task::spawn_blocking(move || {
            let done = engine.fetch_and_unpack(&session, incoming, &told, &state);
            drop(slot);
            done
        });
        let is_new = working.await.map_err(|_| EngineError::internal("a worker thread ended early"))?;
        let is_new = is_new.doing(|| format!("cannot pull {}", reference.familiar()))?;
        self.inner.faults.pass("pull.keep");
        self.emit_image("pull", &id.to_string(), &reference.familiar());
        self.inner.faults.pass("pull.told");
        Ok(self.tell_outcome(&board, reference, digest, is_new))
    }

    /// The digest, when what the registry has under the tag is what we have under it.
    async fn is_current(
        &self,
        session: &Session,
        reference: &Reference,
        platform: &TargetPlatform,
    ) -> Result<Option<Digest>> {
        let digest = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => *digest,
            (None, Some(tag)) => match session.describe(tag).await? {
                Some(described) => described.digest,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let Ok(image) = self.inner.images.get(&reference.to_string()) else { return Ok(None) };
        let is_same = image
            .references
            .iter()
            .any(|known| known.repository() == reference.repository() && known.digest() == Some(&digest));
        let architecture = format!("{}/{}", image.config.os(), image.config.architecture());
        let is_whole = self.inner.images.is_whole(&image.id)?;
        Ok((is_same && is_whole && platform.to_string().starts_with(&architecture)).then_some(digest))
    }

    fn tell_outcome(&self, board: &Board, reference: &Reference, digest: Digest, is_new: bool) -> PullOutcome {
        board.line("", format!("Digest: {digest}"));
        let name = reference.familiar();
        let status = if is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        board.line("", format!("Status: {status} {name}"));
        PullOutcome { reference: name, digest, is_new }
    }

    /// Blocks until the image is known, or nothing of it is.
    fn fetch_and_unpack(
        &self,
        session: &Arc<Session>,
        incoming: Incoming,
        board: &Arc<Board>,
        state: &Arc<FlightState>,
    ) -> Result<bool> {
        let transfers = &self.inner.transfers;
        let runtime = transfers.handle()?;
        let mut started: Option<(FetchSource, tokio::task::AbortHandle)> = None;
        let start = |blobs: &[berth_image::RemoteBlob]| {
            let _guard = runtime.enter();
            let mut fetches = Vec::with_capacity(blobs.len());
            for blob in blobs {
                board.object(plain(&blob.digest.short(), "Pulling fs layer"));
                let fetch = session.fetch(&transfers.partials, &blob.digest, blob.size_bytes);
                fetches.push(fetch.map_err(|error| foreign(blob.digest, &error))?);
            }
            let source = FetchSource::new(fetches);
            state.hold(&source);
            let ticking = runtime.spawn(tick(source.clone(), Arc::clone(board)));
            started = Some((source.clone(), ticking.abort_handle()));
            Ok(source)
        };
        let told = |id: &str, status: &str, current: Option<u64>, total: Option<u64>| {
            self.inner.faults.pass(&format!("pull: {status}"));
            let (current, total) = (current.map(ByteCount), total.map(ByteCount));
            board.object(Progress { id: id.to_owned(), status: status.to_owned(), current, total });
        };
        let pulled = self.inner.images.pull(incoming, start, &told);
        let failure = started.as_ref().and_then(|(source, _)| source.failure());
        if let Some((source, ticking)) = started {
            ticking.abort();
            if pulled.is_ok() {
                // One after the other: what is removed stays open for those that hold it.
                for partial in source.partials() {
                    let digest = partial.digest();
                    transfers.partials.remove(&digest)?;
                    source.let_go(&digest);
                }
            }
        }
        match (pulled, failure) {
            (Ok(is_new), _) => Ok(is_new),
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Refuses early what cannot fit: the missing packed bytes, and at least as many unpacked ones.
    fn check_space(&self, plan: &PullPlan) -> Result<()> {
        let packed = plan.to_fetch.iter().map(|blob| blob.size_bytes).fold(0, u64::saturating_add);
        let (directory, missing) = (&self.inner.paths.data, self.missing_bytes(plan));
        require_space(directory, "the image", missing, packed, &format!(" and at least {} unpacked", ByteCount(packed)))
    }

    fn missing_bytes(&self, plan: &PullPlan) -> u64 {
        self.inner.transfers.missing_bytes(plan.to_fetch.iter().map(|blob| (blob.digest, blob.size_bytes)))
    }

    fn plan_view(
        &self,
        session: &Session,
        reference: &Reference,
        resolved: &Resolved,
        plan: &PullPlan,
    ) -> Result<PullPlanView> {
        let sum = |blobs: &[berth_image::RemoteBlob]| blobs.iter().map(|b| b.size_bytes).fold(0, u64::saturating_add);
        Ok(PullPlanView {
            reference: reference.familiar(),
            hosts: session.hosts(),
            digest: resolved.digest,
            image_id: resolved.incoming.id(),
            platform: resolved.incoming.platform().to_string(),
            to_fetch: plan.to_fetch.iter().map(|b| (b.digest, b.size_bytes)).collect(),
            shared: plan.shared.iter().map(|b| (b.digest, b.size_bytes)).collect(),
            fetch_bytes: self.missing_bytes(plan),
            resumed_bytes: sum(&plan.to_fetch).saturating_sub(self.missing_bytes(plan)),
            shared_bytes: sum(&plan.shared),
            unpacked_bytes_estimated: plan.to_fetch.iter().map(unpacked_estimate).fold(0, u64::saturating_add),
            free_bytes: free_bytes(&self.inner.paths.data)?,
        })
    }
}

/// Gzip and zstd layers grow by about 2.6 in the mean; what is not packed does not grow.
fn unpacked_estimate(blob: &berth_image::RemoteBlob) -> u64 {
    let is_packed = blob.media_type.ends_with("gzip") || blob.media_type.ends_with("zstd");
    if is_packed { blob.size_bytes.saturating_mul(26) / 10 } else { blob.size_bytes }
}

/// Documents only: which image of which platform a name stands for.
async fn resolve(session: &Session, reference: &Reference, platform: &TargetPlatform) -> Result<Resolved> {
    let name = reference.familiar();
    let mut fetched = session.manifest(&wanted(reference)).await?;
    let digest = fetched.digest;
    for _ in 0..=INDEX_DEPTH_MAX {
        let index = match RemoteDocument::parse(fetched.bytes, &fetched.media_type, &name)? {
            RemoteDocument::Manifest(manifest) => {
                let config = session.document(&manifest.config().digest, CONFIG_BYTES_MAX).await?;
                let mut names: Vec<Reference> = vec![format!("{}@{digest}", reference.repository()).parse()?];
                names.extend((reference.digest().is_none()).then(|| reference.clone()));
                return Ok(Resolved { incoming: Incoming::new(manifest, config, names)?, digest });
            }
            RemoteDocument::Index(index) => index,
        };
        let chosen = index.choose(platform)?;
        fetched = listed_manifest(session, &chosen.digest, chosen.size_bytes, &name).await?;
    }
    Err(EngineError::invalid(format!("the indexes of {name} are nested deeper than {INDEX_DEPTH_MAX}")))
}

/// What a registry is asked for when it is asked for a reference.
pub(crate) fn wanted(reference: &Reference) -> String {
    let digest = reference.digest().map(ToString::to_string);
    digest.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_else(|| "latest".to_owned())
}

/// A manifest that an index lists, of the size it lists it with.
pub(crate) async fn listed_manifest(
    session: &Session,
    digest: &Digest,
    size_bytes: u64,
    image: &str,
) -> Result<Fetched> {
    let fetched = session.manifest(&digest.to_string()).await?;
    if fetched.bytes.len() as u64 == size_bytes {
        return Ok(fetched);
    }
    let (short, found) = (digest.short(), fetched.bytes.len());
    let why = format!("manifest {short} of {image} has {found} bytes, its index says {size_bytes}");
    Err(EngineError::new(ErrorClass::DataLoss, why))
}

/// Says how far each layer is, until the pull is over.
async fn tick(source: FetchSource, board: Arc<Board>) {
    let mut told: HashMap<Digest, (u64, bool)> = HashMap::new();
    loop {
        for partial in source.partials() {
            let (received, is_verified) = (partial.received_bytes(), partial.is_verified());
            let last = told.get(&partial.digest()).copied().unwrap_or_default();
            if last == (received, is_verified) || last.1 {
                continue;
            }
            told.insert(partial.digest(), (received, is_verified));
            if let Some(progress) = stage_of(&partial, received, is_verified) {
                board.object_unless(progress, |status| status == "Pull complete");
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

fn stage_of(partial: &Partial, received: u64, is_verified: bool) -> Option<Progress> {
    let id = partial.digest().short();
    if is_verified {
        return Some(plain(&id, "Download complete"));
    }
    if partial.is_complete() {
        return Some(plain(&id, "Verifying Checksum"));
    }
    let (current, total) = (Some(ByteCount(received)), Some(ByteCount(partial.size_bytes())));
    (received > 0).then(|| Progress { id, status: "Downloading".to_owned(), current, total })
}

fn plain(id: &str, status: &str) -> Progress {
    Progress { id: id.to_owned(), status: status.to_owned(), current: None, total: None }
}

fn foreign(digest: Digest, error: &berth_registry::RegistryError) -> berth_image::ImageError {
    berth_image::ImageError::Io {
        operation: "fetch",
        object: format!("layer {digest}"),
        source: std::io::Error::other(berth_types::report(error)),
    }
}

fn pulling_from(reference: &Reference) -> String {
    format!("Pulling from {}", reference.path())
}

fn tag_or_digest(reference: &Reference) -> &str {
    reference.tag().filter(|_| reference.digest().is_none()).unwrap_or("")
}

fn parse(name: &str) -> Result<Reference> {
    Ok(name.parse::<Reference>()?)
}

pub(super) fn platform(text: Option<&str>) -> Result<TargetPlatform> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => Ok(text.parse()?),
        None => Ok(TargetPlatform::host()),
    }
}
