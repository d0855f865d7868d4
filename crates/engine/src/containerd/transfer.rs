//! Transfers of a tenant's images: archives in and out, unpacking. What is under way is held by a lease of the transfer's own, unless the client
//! brought one; a daemon that dies in the middle leaves a lease that ends by itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_image::TargetPlatform;
use berth_image::tenant::{ExportOptions, Imported, ManifestFilter, NamedImage, Target, UnpackedLayer};
use berth_types::{Digest, Labels, Timestamp};

use crate::api::ByteStream;
use crate::engine::Engine;
use crate::error::{Doing, Result};
use crate::streams::ChannelReader;

/// As containerd's own leases of transfers.
const LEASE_NS: i64 = 24 * 3600 * 1_000_000_000;
const EXPIRE: &str = "containerd.io/gc.expire";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// What is moved stays for as long as this is held; [`Self::end`] lets go of it.
#[derive(Debug)]
pub struct TransferLease {
    engine: Engine,
    tenant: String,
    id: String,
    /// To be deleted: by [`Self::end`], or when a client hangs up in the middle and this is dropped.
    is_ours: bool,
}

impl TransferLease {
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Deletes the lease, unless it is the client's.
    pub async fn end(mut self) {
        if std::mem::take(&mut self.is_ours) {
            delete(self.engine.clone(), self.tenant.clone(), self.id.clone()).await;
        }
    }
}

impl Drop for TransferLease {
    fn drop(&mut self) {
        if self.is_ours
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(delete(self.engine.clone(), self.tenant.clone(), self.id.clone()));
        }
    }
}

async fn delete(engine: Engine, tenant: String, id: String) {
    let ended = engine.blocking(move |engine| {
        let tenant = engine.inner.images.tenant(&tenant)?;
        Ok(tenant.delete_lease(&id, false)?)
    });
    if let Err(error) = ended.await {
        tracing::warn!("a transfer's lease stays until it is over: {}", error.message);
    }
}

/// Something a transfer tells while it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferStep {
    /// containerd's words: `waiting`, `downloading`, `complete`, `already exists`, `saved` …
    pub event: String,
    pub name: String,
    pub parents: Vec<String>,
    pub bytes: u64,
    pub bytes_total: u64,
    pub target: Option<Target>,
}

impl TransferStep {
    pub fn line(event: impl Into<String>) -> Self {
        Self { event: event.into(), ..Self::default() }
    }

    pub(super) fn of(event: &str, parent: &str, target: &Target, bytes: u64) -> Self {
        Self {
            event: event.to_owned(),
            name: step_name(target),
            parents: vec![parent.to_owned()],
            bytes,
            bytes_total: target.size_bytes,
            target: Some(target.clone()),
        }
    }
}

/// containerd's name for a piece of an image.
fn step_name(target: &Target) -> String {
    let kind = target.media_type.as_str();
    let kind = match kind {
        _ if kind.contains("index") || kind.contains("manifest.list") => "index",
        _ if kind.contains("manifest") => "manifest",
        _ if kind.contains("layer") || kind.contains("rootfs.diff") => "layer",
        _ if kind.contains("config") || kind.contains("container.image") => "config",
        _ => "unknown",
    };
    format!("{kind}-{}", target.digest)
}

impl Engine {
    /// # Errors
    /// `NotFound` for a lease that is not there.
    pub async fn transfer_lease(&self, tenant: &str, given: Option<String>) -> Result<TransferLease> {
        let now = Timestamp::now();
        let id = given.clone().unwrap_or_else(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("transfer-{}-{number}", now.0)
        });
        let (name, lease, is_ours) = (tenant.to_owned(), id.clone(), given.is_none());
        self.blocking(move |engine| {
            let tenant = engine.inner.images.tenant(&name)?;
            if is_ours {
                let end = Timestamp(now.0.saturating_add(LEASE_NS)).to_string();
                let labels: Labels = [(EXPIRE.to_owned(), end)].into();
                tenant.create_lease(&lease, &labels)?;
            } else {
                tenant.lease(&lease)?;
            }
            Ok(())
        })
        .await?;
        Ok(TransferLease { engine: self.clone(), tenant: tenant.to_owned(), id, is_ours })
    }

    /// An archive becomes blobs of the tenant, as far as the filter lets them; names are the caller's.
    ///
    /// # Errors
    /// `InvalidArgument` when it is damaged; `NotFound` when nothing of it is asked for.
    pub async fn import_blobs(
        &self,
        lease: &TransferLease,
        tar: ByteStream,
        filter: ManifestFilter,
    ) -> Result<Imported> {
        let (tenant, lease) = (lease.tenant.clone(), lease.id.clone());
        self.heavy(move |engine| {
            let mut tar = ChannelReader::new(tar);
            let tenant = engine.inner.images.tenant(&tenant)?;
            let imported = tenant.import_archive(&mut tar, &lease).and_then(|mut imported| {
                if !filter.takes_all() {
                    let new: HashSet<Digest> = imported.new_blobs.iter().map(|(digest, _)| *digest).collect();
                    imported.images = tenant.keep_suiting(&imported.index, &filter, &|digest| new.contains(digest))?;
                }
                Ok(imported)
            });
            imported.doing(|| "cannot import the archive".to_owned())
        })
        .await
    }

    /// The images as an archive. The lease must be held until the stream has ended.
    ///
    /// # Errors
    /// `NotFound` for a name; what is missing of an image ends the stream.
    pub async fn export_blobs(
        &self,
        lease: &TransferLease,
        names: Vec<String>,
        options: ExportOptions,
    ) -> Result<ByteStream> {
        let (tenant, held, platforms) = (lease.tenant.clone(), lease.id.clone(), options.platforms.clone());
        let images: Vec<NamedImage> = self
            .blocking(move |engine| {
                let tenant = engine.inner.images.tenant(&tenant)?;
                let images = names.iter().map(|name| Ok(tenant.image(name)?)).collect::<Result<Vec<_>>>()?;
                for image in &images {
                    tenant.hold_parts(&image.target, &platforms, &held)?;
                }
                Ok(images)
            })
            .await?;
        let tenant = lease.tenant.clone();
        Ok(self.produce(move |engine, out| {
            Ok(engine.inner.images.tenant(&tenant)?.export_archive(&images, &options, out)?)
        }))
    }

    /// Makes the snapshots of an image's layers.
    ///
    /// # Errors
    /// `NotFound` when a layer is not here; `InvalidArgument`, `DataLoss` for a bad one.
    pub async fn unpack_image(
        &self,
        lease: &TransferLease,
        target: Target,
        platform: TargetPlatform,
    ) -> Result<Vec<UnpackedLayer>> {
        let (tenant, lease) = (lease.tenant.clone(), lease.id.clone());
        self.heavy(move |engine| {
            let unpacked = engine.inner.images.tenant(&tenant)?.unpack_image(&target, &platform, Some(&lease));
            unpacked.doing(|| format!("cannot unpack {}", target.digest.short()))
        })
        .await
    }
}
