//! A tenant's images from and to registries: blob by blob, whatever platforms were asked for.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use berth_image::TargetPlatform;
use berth_image::tenant::{Expectation, Leads, Target};
use berth_registry::{Credentials, Fetch, Pushed, Session};
use berth_types::{Digest, Labels, Reference};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::transfer::{TransferLease, TransferStep};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::images::pull::{listed_manifest, wanted};
use crate::transfer::require_space;

/// Documents of one image.
const DOCUMENTS_MAX: usize = 1024;
const TICK: Duration = Duration::from_millis(200);

/// What is to be pulled for a tenant.
#[derive(Debug, Clone, Default)]
pub struct TenantPull {
    pub reference: String,
    pub credentials: Credentials,
    /// None: all that there are.
    pub platforms: Vec<TargetPlatform>,
    /// Manifests and configs of other platforms come too.
    pub all_metadata: bool,
    /// At most so many manifests of an index; 0: all.
    pub manifests_max: usize,
}

/// What came.
#[derive(Debug, Clone)]
pub struct TenantPulled {
    pub target: Target,
    /// Blobs that the tenant did not have before, with their sizes.
    pub new_blobs: Vec<(Digest, u64)>,
}

/// What is to be pushed.
#[derive(Debug, Clone, Default)]
pub struct TenantPush {
    pub image: String,
    pub reference: String,
    pub credentials: Credentials,
    /// None: all that the image has.
    pub platforms: Vec<TargetPlatform>,
}

impl Engine {
    /// Brings what a registry has under a name into a tenant's content.
    ///
    /// # Errors
    /// The registry's; `DataLoss` for bytes that are not what they should be.
    pub async fn pull_blobs(
        &self,
        lease: &TransferLease,
        pull: TenantPull,
        told: mpsc::Sender<TransferStep>,
    ) -> Result<TenantPulled> {
        let reference: Reference = pull.reference.parse()?;
        let session = self.inner.transfers.session(&reference, pull.credentials.clone())?;
        let mut job = Pull {
            engine: self.clone(),
            session,
            tenant: lease.tenant().to_owned(),
            lease: lease.id().to_owned(),
            root: pull.reference.clone(),
            source: (format!("containerd.io/distribution.source.{}", reference.domain()), reference.path().to_owned()),
            told,
            new_blobs: Vec::new(),
        };
        let name = pull.reference.clone();
        self.inner
            .transfers
            .run(async move { job.run(&reference, &pull).await.doing(|| format!("cannot pull {name}")) })
            .await
    }

    /// Gives a registry what a tenant's image is made of, documents last.
    ///
    /// # Errors
    /// `NotFound` when something of it is not here; the registry's.
    pub async fn push_blobs(
        &self,
        lease: &TransferLease,
        push: TenantPush,
        told: mpsc::Sender<TransferStep>,
    ) -> Result<()> {
        let reference: Reference = push.reference.parse::<Reference>()?.with_default_tag();
        let session = self.inner.transfers.session(&reference, push.credentials.clone())?;
        let (engine, tenant, held) = (self.clone(), lease.tenant().to_owned(), lease.id().to_owned());
        let name = push.reference.clone();
        self.inner
            .transfers
            .run(async move {
                let pushed = engine.push_parts(&session, &reference, tenant, held, push, told).await;
                pushed.doing(|| format!("cannot push {name}"))
            })
            .await
    }

    async fn push_parts(
        &self,
        session: &Arc<Session>,
        reference: &Reference,
        tenant: String,
        lease: String,
        push: TenantPush,
        told: mpsc::Sender<TransferStep>,
    ) -> Result<()> {
        let (image, platforms) = (push.image.clone(), push.platforms.clone());
        let (root, blobs, documents) = self
            .blocking(move |engine| {
                let tenant = engine.inner.images.tenant(&tenant)?;
                let target = tenant.image(&image)?.target;
                let parts = tenant.hold_parts(&target, &platforms, &lease)?;
                let path = |part: &Target| (part.clone(), tenant.blob_path(&part.digest));
                let blobs: Vec<(Target, PathBuf)> = parts.blobs.iter().map(path).collect();
                let read = |part: &Target| Ok((part.clone(), tenant.document(&part.digest)?));
                let documents = parts.documents.iter().map(read).collect::<Result<Vec<_>>>()?;
                Ok((target, blobs, documents))
            })
            .await?;
        let mut jobs = JoinSet::new();
        for (blob, path) in blobs {
            jobs.spawn(push_blob(Arc::clone(session), blob, path, push.image.clone(), told.clone()));
        }
        while let Some(pushed) = jobs.join_next().await {
            pushed.map_err(|_| EngineError::internal("a transfer ended early"))??;
        }
        // What leads to others comes after them.
        for (document, bytes) in documents.iter().rev() {
            let by_digest = document.digest.to_string();
            let tag = reference.tag().filter(|_| document.digest == root.digest);
            session.put_manifest(tag.unwrap_or(&by_digest), &document.media_type, bytes).await?;
            tell(&told, TransferStep::of("complete", &push.image, document, document.size_bytes));
        }
        Ok(())
    }
}

async fn push_blob(
    session: Arc<Session>,
    blob: Target,
    path: PathBuf,
    parent: String,
    told: mpsc::Sender<TransferStep>,
) -> Result<()> {
    let progress = |sent: u64| tell(&told, TransferStep::of("uploading", &parent, &blob, sent));
    let pushed = session.push_blob(&blob.digest, &path, blob.size_bytes, &[], &progress).await?;
    let event = if matches!(pushed, Pushed::Uploaded) { "complete" } else { "already exists" };
    tell(&told, TransferStep::of(event, &parent, &blob, blob.size_bytes));
    Ok(())
}

/// A client that does not keep up gets less of it.
fn tell(told: &mpsc::Sender<TransferStep>, step: TransferStep) {
    drop(told.try_send(step));
}

/// One pull under way, on the transfer thread.
struct Pull {
    engine: Engine,
    session: Arc<Session>,
    tenant: String,
    lease: String,
    root: String,
    /// Label that says where a blob can be had again.
    source: (String, String),
    told: mpsc::Sender<TransferStep>,
    new_blobs: Vec<(Digest, u64)>,
}

impl Pull {
    async fn run(&mut self, reference: &Reference, pull: &TenantPull) -> Result<TenantPulled> {
        let found = self.session.manifest(&wanted(reference)).await?;
        let target = Target {
            media_type: found.media_type.clone(),
            digest: found.digest,
            size_bytes: found.bytes.len() as u64,
            annotations: std::collections::BTreeMap::new(),
        };
        self.tell(TransferStep {
            event: "fetching image content".to_owned(),
            name: self.root.clone(),
            target: Some(target.clone()),
            ..TransferStep::default()
        });
        let blobs = self.documents(&target, found.bytes, pull).await?;
        self.blobs(blobs).await?;
        Ok(TenantPulled { target, new_blobs: std::mem::take(&mut self.new_blobs) })
    }

    /// Fetches and keeps all documents; what they lead to, each once.
    async fn documents(&mut self, target: &Target, bytes: Vec<u8>, pull: &TenantPull) -> Result<Vec<Target>> {
        let mut pending = vec![(target.clone(), Some(bytes), true)];
        let (mut documents, mut manifests) = (0, 0);
        let mut blobs: Vec<Target> = Vec::new();
        while let Some((document, bytes, is_wanted)) = pending.pop() {
            documents += 1;
            if documents > DOCUMENTS_MAX {
                return Err(EngineError::invalid(format!("{} has more than {DOCUMENTS_MAX} manifests", self.root)));
            }
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => {
                    let (digest, size) = (&document.digest, document.size_bytes);
                    listed_manifest(&self.session, digest, size, &self.root).await?.bytes
                }
            };
            let leads = Leads::parse(&bytes, &document.media_type, &format!("the manifest of {}", self.root))?;
            self.keep(document, bytes).await?;
            match leads {
                Leads::Index(children) => {
                    for child in children {
                        let suits = child.suits(&pull.platforms) && is_wanted;
                        if suits || pull.all_metadata {
                            pending.insert(0, (child.target, None, suits));
                        }
                    }
                }
                Leads::Manifest { config, layers } => {
                    manifests += usize::from(is_wanted);
                    let is_over = pull.manifests_max > 0 && manifests > pull.manifests_max;
                    let layers = layers.into_iter().filter(|_| is_wanted && !is_over);
                    let is_config_wanted = pull.all_metadata || (is_wanted && !is_over);
                    for blob in std::iter::once(config).filter(|_| is_config_wanted).chain(layers) {
                        if !blobs.iter().any(|known| known.digest == blob.digest) {
                            blobs.push(blob);
                        }
                    }
                }
            }
        }
        if manifests == 0 {
            let shown: Vec<String> = pull.platforms.iter().map(ToString::to_string).collect();
            let why = format!("{} has no manifest for {}", self.root, shown.join(", "));
            return Err(EngineError::not_found(why));
        }
        Ok(blobs)
    }

    async fn keep(&mut self, document: Target, bytes: Vec<u8>) -> Result<()> {
        let step = TransferStep::of("complete", &self.root, &document, document.size_bytes);
        let (tenant, lease, labels) = (self.tenant.clone(), self.lease.clone(), self.labels());
        let (digest, size) = (document.digest, document.size_bytes);
        let work = move |engine: &Engine| {
            let tenant = engine.inner.images.tenant(&tenant)?;
            Ok(tenant.take_blob(Expectation { digest, size_bytes: size }, &mut bytes.as_slice(), &labels, &lease)?)
        };
        if self.engine.blocking(work).await? {
            self.new_blobs.push((digest, size));
        }
        self.tell(step);
        Ok(())
    }

    fn labels(&self) -> Labels {
        [self.source.clone()].into()
    }

    /// Fetches what is missing, in parallel; what is here is held.
    async fn blobs(&mut self, blobs: Vec<Target>) -> Result<()> {
        let mut missing: Vec<Target> = Vec::new();
        for blob in blobs {
            let (tenant, lease, digest) = (self.tenant.clone(), self.lease.clone(), blob.digest);
            let (labels, size) = (self.labels(), blob.size_bytes);
            let is_here = self.engine.blocking(move |engine| {
                let expected = Expectation { digest, size_bytes: size };
                Ok(engine.inner.images.tenant(&tenant)?.hold_blob(expected, &labels, &lease)?)
            });
            if is_here.await? {
                self.tell(TransferStep::of("already exists", &self.root, &blob, size));
                continue;
            }
            missing.push(blob);
        }
        self.check_space(&missing)?;
        let mut fetches: VecDeque<(Target, Arc<Fetch>)> = VecDeque::new();
        for blob in missing {
            self.tell(TransferStep::of("waiting", &self.root, &blob, 0));
            let partials = &self.engine.inner.transfers.partials;
            let fetch = self.session.fetch(partials, &blob.digest, blob.size_bytes)?;
            fetches.push_back((blob, fetch));
        }
        while let Some((_, fetch)) = fetches.front() {
            self.await_fetch(fetch, &fetches).await?;
            // Held to the end of this step, and no longer: its file stays open for those that hold it.
            let Some((blob, fetch)) = fetches.pop_front() else { break };
            // Another pull of the same blob may have been faster and taken its name away; who reads goes on.
            let mut content = fetch.partial().reader();
            let (tenant, lease, labels) = (self.tenant.clone(), self.lease.clone(), self.labels());
            let (digest, size) = (blob.digest, blob.size_bytes);
            let taken = self.engine.blocking(move |engine| {
                let expected = Expectation { digest, size_bytes: size };
                let tenant = engine.inner.images.tenant(&tenant)?;
                let is_new = tenant.take_blob(expected, &mut content, &labels, &lease)?;
                engine.inner.transfers.partials.remove(&digest)?;
                Ok(is_new)
            });
            if taken.await? {
                self.new_blobs.push((digest, size));
            }
            self.tell(TransferStep::of("complete", &self.root, &blob, size));
        }
        Ok(())
    }

    /// Refuses early what cannot fit: what has to come, and the largest of it once more, for it is copied when it is complete.
    fn check_space(&self, missing: &[Target]) -> Result<()> {
        let blobs = missing.iter().map(|blob| (blob.digest, blob.size_bytes));
        let fetched = self.engine.inner.transfers.missing_bytes(blobs);
        let largest = missing.iter().map(|blob| blob.size_bytes).max().unwrap_or(0);
        require_space(&self.engine.inner.paths.data, &self.root, fetched, largest, "")
    }

    /// Tells of all fetches until this one is complete.
    async fn await_fetch(&self, awaited: &Fetch, fetches: &VecDeque<(Target, Arc<Fetch>)>) -> Result<()> {
        let mut verified = pin!(awaited.partial().verified());
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                done = &mut verified => return Ok(done?),
                _ = tick.tick() => {
                    for (blob, fetch) in fetches {
                        let received = fetch.partial().received_bytes();
                        if received > 0 {
                            self.tell(TransferStep::of("downloading", &self.root, blob, received));
                        }
                    }
                }
            }
        }
    }

    fn tell(&self, step: TransferStep) {
        tell(&self.told, step);
    }
}
