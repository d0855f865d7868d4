//! `Version`.

use berth_containerd_api::containerd::services::version::v1::VersionResponse;
use berth_containerd_api::containerd::services::version::v1::version_server::Version;
use tonic::{Request, Response};

use super::Answer;
use crate::Face;

#[tonic::async_trait]
impl Version for Face {
    async fn version(&self, _: Request<()>) -> Answer<VersionResponse> {
        let options = &self.options;
        Ok(Response::new(VersionResponse { version: options.version.clone(), revision: options.git_commit.clone() }))
    }
}
