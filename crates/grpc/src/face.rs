//! What every service holds: the engine, and facts about this daemon.

use std::path::PathBuf;
use std::sync::Arc;

use berth_core::Tenant;
use berth_core::objects::Objects;
use berth_engine::api::Engine;
use berth_image::ImageError;
use berth_image::tenant::Tenant as StoreTenant;
use tonic::Status;

use crate::status::IntoStatus as _;
use crate::streams::Streams;

#[derive(Debug, Clone)]
pub struct FaceOptions {
    pub version: String,
    pub git_commit: String,
    pub data_root: PathBuf,
    pub state_root: PathBuf,
}

/// The face; cheap to clone.
#[derive(Debug, Clone)]
pub struct Face {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: Arc<FaceOptions>,
    pub(crate) streams: Arc<Streams>,
}

impl Face {
    pub fn new(engine: Arc<Engine>, options: FaceOptions) -> Self {
        Self { engine, options: Arc::new(options), streams: Arc::default() }
    }

    /// Work on a tenant's images, blobs, snapshots or leases, on a thread for it.
    pub(crate) async fn store<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        work: impl FnOnce(StoreTenant<'_>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Status> {
        let (store, tenant) = (Arc::clone(self.engine.image_store()), tenant.clone());
        match tokio::task::spawn_blocking(move || store.tenant(tenant.as_str()).and_then(work)).await {
            Ok(done) => done.map_err(|error| error.into_status()),
            Err(_) => Err(Status::internal("a worker thread ended early")),
        }
    }

    /// A look at records, which waits for nobody: done here, since a thread for it would cost more than it does.
    pub(crate) fn look<T>(
        &self,
        tenant: &Tenant,
        look: impl FnOnce(StoreTenant<'_>) -> Result<T, ImageError>,
    ) -> Result<T, Status> {
        let found = self.engine.image_store().tenant(tenant.as_str()).and_then(look);
        found.map_err(|error| error.into_status())
    }

    /// Work on objects that may wait for the disk, on a thread for it.
    pub(crate) async fn objects<T, E>(
        &self,
        work: impl FnOnce(&Objects) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        E: berth_types::Classify + std::error::Error + Send + 'static,
    {
        let objects = Arc::clone(self.engine.objects());
        match tokio::task::spawn_blocking(move || work(&objects)).await {
            Ok(done) => done.map_err(|error| error.into_status()),
            Err(_) => Err(Status::internal("a worker thread ended early")),
        }
    }
}
