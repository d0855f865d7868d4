//! `Mounts` (containerd 2.2): a mount manager for kinds of mounts that the kernel does not know by itself.
//!
//! We have none of those: every mount that a snapshot gives is the kernel's own, and the runtime makes it detached. As containerd's manager
//! does in that case, `Activate` answers UNIMPLEMENTED, which tells a client to mount by itself, and no activation ever exists.

use berth_containerd_api::containerd::services::mounts::v1::mounts_server::Mounts;
use berth_containerd_api::containerd::services::mounts::v1::{
    ActivateRequest, ActivateResponse, DeactivateRequest, InfoRequest, InfoResponse, ListMessage, ListRequest,
    UpdateRequest, UpdateResponse,
};
use tonic::{Request, Response, Status};

use super::{Answer, Answers, filters};
use crate::{Face, tenant};

fn not_found(name: &str) -> Status {
    Status::not_found(format!("mount {name:?}: not found"))
}

#[tonic::async_trait]
impl Mounts for Face {
    async fn activate(&self, request: Request<ActivateRequest>) -> Answer<ActivateResponse> {
        tenant::of(&request)?;
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(Status::invalid_argument("a mount needs a name"));
        }
        Err(Status::unimplemented("none of these mounts needs a manager: mount them as they are"))
    }

    async fn deactivate(&self, request: Request<DeactivateRequest>) -> Answer<()> {
        tenant::of(&request)?;
        Err(not_found(&request.into_inner().name))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Answer<InfoResponse> {
        tenant::of(&request)?;
        Err(not_found(&request.into_inner().name))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Answer<UpdateResponse> {
        tenant::of(&request)?;
        Err(not_found(&request.into_inner().info.unwrap_or_default().name))
    }

    type ListStream = Answers<ListMessage>;

    async fn list(&self, request: Request<ListRequest>) -> Answer<Self::ListStream> {
        tenant::of(&request)?;
        filters(&request.into_inner().filters)?;
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}
