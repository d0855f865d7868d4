//! `Diff`: a packed layer into a snapshot's mounts, and what a snapshot changed as a packed layer.

use berth_containerd_api::containerd::services::diff::v1::diff_server::Diff;
use berth_containerd_api::containerd::services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use berth_containerd_api::containerd::types::Descriptor;
use tonic::{Request, Response, Status};

use super::Answer;
use crate::convert::{digest, mount_from_wire, signed};
use crate::{Face, tenant};

/// What an applied layer is, uncompressed.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

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
        tenant::of(&request)?;
        Err(Status::unimplemented("making a layer of a snapshot is not done yet; berth commit does it for containers"))
    }
}
