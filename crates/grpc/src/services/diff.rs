//! `Diff`: a packed layer into a snapshot's mounts, and what a snapshot changed as a packed layer.

use berth_containerd_api::containerd::services::diff::v1::diff_server::Diff;
use berth_containerd_api::containerd::services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use berth_containerd_api::containerd::types::Descriptor;
use berth_image::tenant::LayerFormat;
use tonic::{Request, Response, Status};

use super::Answer;
use crate::convert::{digest, mount_from_wire, signed};
use crate::{Face, tenant};

/// What an applied layer is, uncompressed.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer of this media type is packed; none named: as containerd does.
fn format(media_type: &str) -> Result<LayerFormat, Status> {
    match media_type {
        "" | "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Ok(LayerFormat::Gzip)
        }
        LAYER_TYPE | "application/vnd.docker.image.rootfs.diff.tar" => Ok(LayerFormat::Plain),
        "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Ok(LayerFormat::Zstd)
        }
        other => Err(Status::unimplemented(format!("a layer cannot be packed as media type {other:?}"))),
    }
}

#[tonic::async_trait]
impl Diff for Face {
    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let wanted = request.diff.unwrap_or_default();
        if !wanted.media_type.contains("layer") && !wanted.media_type.contains("rootfs.diff") {
            let what = format!("media type {:?} is no layer that can be applied here", wanted.media_type);
            return Err(Status::unimplemented(what));
        }
        let blob = digest(&wanted.digest)?;
        let mounts: Vec<_> = request.mounts.into_iter().map(mount_from_wire).collect();
        let applied = self.store(&tenant, move |store| store.apply_layer(&blob, &mounts)).await?;
        let applied = Descriptor {
            media_type: LAYER_TYPE.to_owned(),
            digest: applied.diff_id.to_string(),
            size: signed(applied.size_bytes),
            ..Default::default()
        };
        Ok(Response::new(ApplyResponse { applied: Some(applied) }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Answer<DiffResponse> {
        let (tenant, lease) = (tenant::of(&request)?, tenant::lease_of(&request));
        let request = request.into_inner();
        let format = format(&request.media_type)?;
        let lower: Vec<_> = request.left.into_iter().map(mount_from_wire).collect();
        let upper: Vec<_> = request.right.into_iter().map(mount_from_wire).collect();
        let media_type =
            if request.media_type.is_empty() { format.media_type().to_owned() } else { request.media_type };
        let labels = request.labels;
        let made = self
            .store(&tenant, move |store| store.create_layer(&lower, &upper, format, &labels, lease.as_deref()))
            .await?;
        let diff = Descriptor {
            media_type,
            digest: made.digest.to_string(),
            size: signed(made.size_bytes),
            annotations: [("containerd.io/uncompressed".to_owned(), made.diff_id.to_string())].into(),
        };
        Ok(Response::new(DiffResponse { diff: Some(diff) }))
    }
}
