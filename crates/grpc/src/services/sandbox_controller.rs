//! Sandbox `Controller`: running pods. Not done yet: every call is refused by name, so that no client takes a pod for running.

use berth_containerd_api::containerd::services::sandbox::v1::controller_server::Controller;
use berth_containerd_api::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest, ControllerMetricsResponse,
    ControllerPlatformRequest, ControllerPlatformResponse, ControllerShutdownRequest, ControllerShutdownResponse,
    ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest, ControllerUpdateResponse,
    ControllerWaitRequest, ControllerWaitResponse,
};
use tonic::{Request, Response, Status};

use super::Answer;
use super::introspection::own_platform;
use crate::Face;

fn not_done(what: &str) -> Status {
    Status::unimplemented(format!("{what} a sandbox is not done yet; a shim that serves a whole pod groups by itself"))
}

#[tonic::async_trait]
impl Controller for Face {
    async fn create(&self, _: Request<ControllerCreateRequest>) -> Answer<ControllerCreateResponse> {
        Err(not_done("creating"))
    }

    async fn start(&self, _: Request<ControllerStartRequest>) -> Answer<ControllerStartResponse> {
        Err(not_done("starting"))
    }

    async fn platform(&self, _: Request<ControllerPlatformRequest>) -> Answer<ControllerPlatformResponse> {
        Ok(Response::new(ControllerPlatformResponse { platform: Some(own_platform()) }))
    }

    async fn stop(&self, _: Request<ControllerStopRequest>) -> Answer<ControllerStopResponse> {
        Err(not_done("stopping"))
    }

    async fn wait(&self, _: Request<ControllerWaitRequest>) -> Answer<ControllerWaitResponse> {
        Err(not_done("waiting for"))
    }

    async fn status(&self, _: Request<ControllerStatusRequest>) -> Answer<ControllerStatusResponse> {
        Err(not_done("the status of"))
    }

    async fn shutdown(&self, _: Request<ControllerShutdownRequest>) -> Answer<ControllerShutdownResponse> {
        Err(not_done("shutting down"))
    }

    async fn metrics(&self, _: Request<ControllerMetricsRequest>) -> Answer<ControllerMetricsResponse> {
        Err(not_done("measuring"))
    }

    async fn update(&self, _: Request<ControllerUpdateRequest>) -> Answer<ControllerUpdateResponse> {
        Err(not_done("changing"))
    }
}
