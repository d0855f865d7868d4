//! `Transfer` and `Streaming`: images moved by the daemon instead of the client. So far one name can be given to another's image; streams and
//! registries are refused by name.

use berth_containerd_api::containerd::services::images::v1::ImageCreate;
use berth_containerd_api::containerd::services::streaming::v1::streaming_server::Streaming;
use berth_containerd_api::containerd::services::transfer::v1::TransferRequest;
use berth_containerd_api::containerd::services::transfer::v1::transfer_server::Transfer;
use berth_containerd_api::containerd::types::transfer::ImageStore;
use prost::{Message as _, Name as _};
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::{Answer, Answers};
use crate::event::Docker;
use crate::{Face, tenant};

fn image_store(any: &Any) -> Option<ImageStore> {
    let is_one = any.type_url.rsplit('/').next() == Some(ImageStore::full_name().as_str());
    is_one.then(|| ImageStore::decode(any.value.as_slice()).ok()).flatten()
}

#[tonic::async_trait]
impl Transfer for Face {
    async fn transfer(&self, request: Request<TransferRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let (source, destination) = (request.source.unwrap_or_default(), request.destination.unwrap_or_default());
        let (Some(from), Some(to)) = (image_store(&source), image_store(&destination)) else {
            let what = format!("transfer from {} to {} is not done yet", source.type_url, destination.type_url);
            return Err(Status::unimplemented(what));
        };
        let name = to.name.clone();
        let made = self
            .store(&tenant, move |store| {
                let target = store.image(&from.name)?.target;
                store.create_image(&name, target, &to.labels)
            })
            .await?;
        let event = ImageCreate { name: made.name.clone(), labels: made.labels.clone() };
        let docker = Docker::image("tag", &made.target.digest.to_string(), &made.name);
        self.publish(&tenant, "/images/create", &event, Some(docker));
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl Streaming for Face {
    type StreamStream = Answers<Any>;

    async fn stream(&self, _: Request<tonic::Streaming<Any>>) -> Answer<Self::StreamStream> {
        Err(Status::unimplemented("streams for transfers are not done yet"))
    }
}
