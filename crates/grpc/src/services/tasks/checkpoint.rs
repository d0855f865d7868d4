//! Checkpoints: the shim writes an image of the processes into a directory, which becomes content; and the way back, before a task is made.
//! Each call has a directory of its own (`berth_core::CheckpointDir`).

use std::path::PathBuf;

use berth_containerd_api::containerd::runc::v1::CheckpointOptions;
use berth_containerd_api::containerd::services::tasks::v1::{CheckpointTaskRequest, CheckpointTaskResponse};
use berth_containerd_api::containerd::types::Descriptor;
use berth_core::Tenant;
use berth_rootfs::RootDir;
use prost::Message as _;
use tonic::Status;

use super::pair;
use crate::Face;
use crate::convert::{digest, signed};
use crate::status::IntoStatus as _;
use crate::streams::unpack;

const CHECKPOINT: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

impl Face {
    pub(super) async fn checkpoint_task(
        &self,
        tenant: &Tenant,
        lease: Option<String>,
        request: CheckpointTaskRequest,
    ) -> Result<CheckpointTaskResponse, Status> {
        let id = request.container_id.clone();
        let options = match &request.options {
            Some(any) if !any.value.is_empty() => unpack::<CheckpointOptions>(any)?,
            _ => CheckpointOptions::default(),
        };
        let shim = self.shim(tenant, &id)?;
        let written = pair(request.options);
        if !options.image_path.is_empty() {
            // The client wants the images there, and no content.
            shim.checkpoint(&options.image_path, written).await.map_err(|error| error.into_status())?;
            return Ok(CheckpointTaskResponse::default());
        }
        let object = self.container(tenant, &id)?;
        let dir = self.engine.fleet().new_checkpoint_dir(tenant, &id).map_err(|error| error.into_status())?;
        let done = shim.checkpoint(&dir.path().display().to_string(), written).await;
        done.map_err(|error| error.into_status())?;
        let spec = object.spec.map(crate::convert::any);
        let descriptors = self.keep_checkpoint(tenant, lease, &id, dir.path().to_owned(), spec).await?;
        Ok(CheckpointTaskResponse { descriptors })
    }

    async fn keep_checkpoint(
        &self,
        tenant: &Tenant,
        lease: Option<String>,
        id: &str,
        path: PathBuf,
        spec: Option<prost_types::Any>,
    ) -> Result<Vec<Descriptor>, Status> {
        // As the directory is: of this call alone.
        let call = path.file_name().unwrap_or_default().to_string_lossy();
        let reference = format!("checkpoint-{id}-{call}");
        let described = |media_type: &str, (digest, size): (berth_types::Digest, u64)| Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: signed(size),
            ..Default::default()
        };
        self.store(tenant, move |store| {
            let images = store.keep_written(&reference, lease.as_deref(), |out| berth_image::pack(&path, &[], out))?;
            let config =
                store.keep_written(&reference, lease.as_deref(), |out| {
                    out.write_all(&spec.unwrap_or_default().encode_to_vec()).map_err(|source| {
                        berth_image::ImageError::Io { operation: "write", object: "the document".to_owned(), source }
                    })
                })?;
            Ok(vec![described(CHECKPOINT, images), described(CONFIG, config)])
        })
        .await
    }

    /// Unpacks a checkpoint for a task that is to be made from it; the path.
    pub(super) async fn take_checkpoint(
        &self,
        tenant: &Tenant,
        id: &str,
        checkpoint: Descriptor,
    ) -> Result<String, Status> {
        if checkpoint.media_type != CHECKPOINT {
            let what = format!("unsupported checkpoint type {:?}", checkpoint.media_type);
            return Err(Status::invalid_argument(what));
        }
        let blob = digest(&checkpoint.digest)?;
        let path = self.engine.fleet().new_restored_dir(tenant, id).map_err(|error| error.into_status())?;
        let into = path.clone();
        let unpacked = self.store(tenant, move |store| {
            let mut tar = store.open_blob(&blob)?;
            let into = RootDir::open_host(&into)?;
            berth_image::apply(&mut tar, &into).map(drop)
        });
        if let Err(status) = unpacked.await {
            self.engine.fleet().drop_restored_from(tenant, id);
            return Err(status);
        }
        Ok(path.display().to_string())
    }
}
