//! `Transfer`: images moved by the daemon instead of the client.
//!
//! ```text
//! from                 to                   what
//! ImageImportStream    ImageStore           import: an archive the client sends
//! ImageStore           ImageExportStream    export
//! OCIRegistry          ImageStore           pull, with unpacking when asked for
//! ImageStore           OCIRegistry          push
//! ImageStore           ImageStore           tag
//! ```
//! Any other pair is UNIMPLEMENTED, as containerd answers when no plugin knows it.

mod naming;
mod registry;

use std::collections::HashSet;
use std::time::Duration;

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::images::v1::{ImageCreate, ImageUpdate};
use berth_containerd_api::containerd::services::transfer::v1::TransferRequest;
use berth_containerd_api::containerd::services::transfer::v1::transfer_server::Transfer;
use berth_containerd_api::containerd::types::Platform;
use berth_containerd_api::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageStore, OciRegistry, Progress,
};
use berth_core::Tenant;
use berth_engine::api::{ByteStream, TransferLease, TransferStep};
use berth_image::TargetPlatform;
use berth_image::tenant::{ExportOptions, ManifestFilter, NamedImage, Target};
use berth_types::{Classify as _, Digest, ErrorClass};
use prost::Name;
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::Answer;
use crate::convert::{descriptor, signed};
use crate::event::Docker;
use crate::status::{IntoStatus as _, engine_status};
use crate::streams::{ClientStream, unpack};
use crate::{Face, tenant};
use naming::Named;

/// Steps on their way to a client.
const STEPS: usize = 256;
/// The snapshotter that transfers unpack to.
const SNAPSHOTTER: &str = berth_image::tenant::OWN_SNAPSHOTTER;
/// A client that reads its progress slowly does not hold the end up longer than this.
const PROGRESS_WAIT: Duration = Duration::from_secs(2);

/// One end of a transfer.
enum End {
    Store(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
    Registry(OciRegistry),
}

impl End {
    fn parse(any: &Any) -> Result<Option<Self>, Status> {
        let is = |name: String| any.type_url.rsplit('/').next() == Some(name.as_str());
        Ok(Some(match () {
            () if is(ImageStore::full_name()) => Self::Store(unpack(any)?),
            () if is(ImageImportStream::full_name()) => Self::Import(unpack(any)?),
            () if is(ImageExportStream::full_name()) => Self::Export(unpack(any)?),
            () if is(OciRegistry::full_name()) => Self::Registry(unpack(any)?),
            () => return Ok(None),
        }))
    }

    /// The client's stream of its bytes.
    fn stream(&self) -> Option<String> {
        match self {
            Self::Import(from) => Some(from.stream.clone()),
            Self::Export(to) => Some(to.stream.clone()),
            Self::Store(_) | Self::Registry(_) => None,
        }
    }
}

/// A transfer under way.
struct Job {
    face: Face,
    tenant: Tenant,
    lease: TransferLease,
    told: mpsc::Sender<TransferStep>,
}

#[tonic::async_trait]
impl Transfer for Face {
    async fn transfer(&self, request: Request<TransferRequest>) -> Answer<()> {
        let (tenant, lease) = (tenant::of(&request)?, tenant::lease_of(&request));
        let request = request.into_inner();
        let (source, destination) = (request.source.unwrap_or_default(), request.destination.unwrap_or_default());
        let (Some(from), Some(to)) = (End::parse(&source)?, End::parse(&destination)?) else {
            return Err(unknown_pair(&source, &destination));
        };
        let refused: Vec<String> = [&from, &to].into_iter().filter_map(End::stream).collect();
        let (told, steps) = mpsc::channel(STEPS);
        let id = request.options.unwrap_or_default().progress_stream;
        let progress = match id.is_empty() {
            true => None,
            false => Some(self.streams.take(&tenant, &id)?),
        };
        let telling = tokio::spawn(tell(progress, steps));
        let lease = self.engine.transfer_lease(tenant.as_str(), lease).await.map_err(engine_status)?;
        let job = Job { face: self.clone(), tenant, lease, told };
        let done = match (from, to) {
            (End::Store(from), End::Store(to)) => job.tag(&from, &to).await,
            (End::Import(from), End::Store(to)) => job.import(&from, &to).await,
            (End::Store(from), End::Export(to)) => job.export(&from, &to).await,
            (End::Registry(from), End::Store(to)) => job.pull(&from, &to).await,
            (End::Store(from), End::Registry(to)) => job.push(&from, &to).await,
            _ => Err(unknown_pair(&source, &destination)),
        };
        if let Err(status) = &done {
            refused.iter().for_each(|id| self.streams.fail(&job.tenant, id, status));
        }
        let Job { lease, told, .. } = job;
        drop(told);
        lease.end().await;
        // All was said before the answer, unless the client does not listen.
        drop(tokio::time::timeout(PROGRESS_WAIT, telling).await);
        done.map(Response::new)
    }
}

fn unknown_pair(source: &Any, destination: &Any) -> Status {
    let (from, to) = (&source.type_url, &destination.type_url);
    Status::unimplemented(format!("method Transfer not implemented for {from} to {to}"))
}

/// Steps to the client, if it wants any.
async fn tell(progress: Option<ClientStream>, mut steps: mpsc::Receiver<TransferStep>) {
    let mut progress = progress;
    while let Some(step) = steps.recv().await {
        let Some(stream) = &progress else { continue };
        let message = Progress {
            event: step.event,
            name: step.name,
            parents: step.parents,
            progress: signed(step.bytes),
            total: signed(step.bytes_total),
            desc: step.target.map(descriptor),
        };
        if stream.say(&message).await.is_err() {
            progress = None;
        }
    }
}

/// # Errors
/// `InvalidArgument` for what is no platform.
fn platforms(wire: &[Platform]) -> Result<Vec<TargetPlatform>, Status> {
    let text = |p: &Platform| {
        let parts = [p.os.as_str(), p.architecture.as_str(), p.variant.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    wire.iter().map(|p| text(p).parse::<TargetPlatform>().map_err(|error| error.into_status())).collect()
}

impl Job {
    fn say(&self, step: TransferStep) {
        drop(self.told.try_send(step));
    }

    async fn tag(&self, from: &ImageStore, to: &ImageStore) -> Result<(), Status> {
        let name = from.name.clone();
        let target = self.face.store(&self.tenant, move |store| Ok(store.image(&name)?.target)).await?;
        self.save(naming::of_target(to, &target)?).await?;
        Ok(())
    }

    async fn import(&self, from: &ImageImportStream, to: &ImageStore) -> Result<(), Status> {
        if from.force_compress {
            return Err(Status::unimplemented("compressing what is imported is not done: force_compress"));
        }
        self.say(TransferStep::line("Importing"));
        let (bytes, refusal) = self.face.streams.take(&self.tenant, &from.stream)?.receive();
        let imported = self.import_bytes(bytes, to).await;
        if let Err(status) = &imported {
            // Nobody is told who has closed already.
            drop(refusal.send(status.clone()));
        }
        imported
    }

    async fn import_bytes(&self, bytes: ByteStream, to: &ImageStore) -> Result<(), Status> {
        let filter = ManifestFilter {
            platforms: platforms(&to.platforms)?,
            keeps_metadata: to.all_metadata,
            manifests_max: usize::try_from(to.manifest_limit).unwrap_or(usize::MAX),
        };
        let imported = self.face.engine.import_blobs(&self.lease, bytes, filter).await.map_err(engine_status)?;
        self.publish_blobs(&imported.new_blobs);
        let mut targets = vec![imported.index.clone()];
        targets.extend(imported.images.iter().cloned());
        // An archive may name one image a thousand times.
        let mut unpacked = HashSet::new();
        for image in imported.images.iter().filter(|image| unpacked.insert(image.digest)) {
            self.unpack(image, to).await?;
        }
        let mut saved = 0;
        for (at, target) in targets.iter().enumerate() {
            let named = if at == 0 { naming::of_target(to, target) } else { Ok(naming::of_annotations(to, target)) };
            match named {
                Ok(named) => saved += self.save(named).await?,
                // Of the index alone: the images have names of their own.
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        tracing::debug!(saved, "archive imported");
        self.say(TransferStep::line("Completed import"));
        Ok(())
    }

    async fn export(&self, from: &ImageStore, to: &ImageExportStream) -> Result<(), Status> {
        self.say(TransferStep::line("Exporting"));
        if from.extra_references.iter().any(|reference| reference.is_prefix) {
            return Err(Status::unimplemented("prefix lookup on export is not done"));
        }
        let mut names: Vec<String> = Vec::new();
        names.extend((!from.name.is_empty()).then(|| from.name.clone()));
        names.extend(from.extra_references.iter().map(|reference| reference.name.clone()));
        let asked = platforms(&to.platforms)?;
        let options = ExportOptions {
            platforms: match (to.all_platforms, asked.is_empty()) {
                (true, _) => Vec::new(),
                (false, true) => vec![TargetPlatform::host()],
                (false, false) => asked,
            },
            skips_docker_manifest: to.skip_compatibility_manifest,
            skips_non_distributable: to.skip_non_distributable,
        };
        let stream = self.face.streams.take(&self.tenant, &to.stream)?;
        let bytes = match self.face.engine.export_blobs(&self.lease, names, options).await.map_err(engine_status) {
            Ok(bytes) => bytes,
            Err(status) => {
                stream.fail(&status);
                return Err(status);
            }
        };
        stream.send(bytes).await?;
        self.say(TransferStep::line("Completed export"));
        Ok(())
    }

    /// Snapshots of the image's layers, for each configuration that is asked for and ours.
    async fn unpack(&self, target: &Target, to: &ImageStore) -> Result<(), Status> {
        for wanted in &to.unpacks {
            if !["", SNAPSHOTTER].contains(&wanted.snapshotter.as_str()) {
                let what = format!("a transfer unpacks to {SNAPSHOTTER:?} only, not to {:?}", wanted.snapshotter);
                return Err(Status::unimplemented(what));
            }
            let platform = match &wanted.platform {
                Some(platform) => platforms(std::slice::from_ref(platform))?.remove(0),
                None => TargetPlatform::host(),
            };
            let unpacked = self.face.engine.unpack_image(&self.lease, target.clone(), platform).await;
            for layer in unpacked.map_err(engine_status)? {
                let snapshotter = SNAPSHOTTER.to_owned();
                let prepared = wire_events::SnapshotPrepare {
                    key: layer.key.clone(),
                    parent: layer.parent.unwrap_or_default(),
                    snapshotter: snapshotter.clone(),
                };
                self.face.publish(&self.tenant, "/snapshot/prepare", &prepared, None);
                let committed = wire_events::SnapshotCommit { key: layer.key, name: layer.name, snapshotter };
                self.face.publish(&self.tenant, "/snapshot/commit", &committed, None);
            }
        }
        Ok(())
    }

    fn publish_blobs(&self, blobs: &[(Digest, u64)]) {
        for (digest, size) in blobs {
            let event =
                wire_events::ContentCreate { digest: digest.to_string(), size: signed(*size), ..Default::default() };
            self.face.publish(&self.tenant, "/content/create", &event, None);
        }
    }

    /// Names that are new are made, others are moved; tells how many.
    async fn save(&self, named: Vec<Named>) -> Result<usize, Status> {
        let count = named.len();
        for one in named {
            let wanted = one.clone();
            let stored = self.face.store(&self.tenant, move |store| {
                match store.create_image(&wanted.name, wanted.target.clone(), &wanted.labels) {
                    Err(error) if error.class() == ErrorClass::AlreadyExists => {
                        store.update_image(&wanted.name, wanted.target, &wanted.labels, &[]).map(|image| (image, false))
                    }
                    other => other.map(|image| (image, true)),
                }
            });
            let (image, is_new) = stored.await?;
            self.tell_saved(&image, is_new);
        }
        Ok(count)
    }

    fn tell_saved(&self, image: &NamedImage, is_new: bool) {
        let (name, labels) = (image.name.clone(), image.labels.clone());
        let docker = Docker::image("tag", &image.target.digest.to_string(), &name);
        match is_new {
            true => self.face.publish(&self.tenant, "/images/create", &ImageCreate { name, labels }, Some(docker)),
            false => self.face.publish(&self.tenant, "/images/update", &ImageUpdate { name, labels }, Some(docker)),
        }
        self.say(TransferStep {
            event: "saved".to_owned(),
            name: image.name.clone(),
            target: Some(image.target.clone()),
            ..TransferStep::default()
        });
    }
}
