//! Sandbox `Controller`: running pods, each on a shim that serves `containerd.runtime.sandbox.v1.Sandbox`, as our own does. One that does not is
//! refused by its own answer.
//!
//! There is one controller, `shim`; clients before 2.0 do not name any. `/sandboxes/exit` is told once, when the sandbox ends, not for each
//! client that waits.

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::sandbox::v1::controller_server::Controller;
use berth_containerd_api::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest, ControllerMetricsResponse,
    ControllerPlatformRequest, ControllerPlatformResponse, ControllerShutdownRequest, ControllerShutdownResponse,
    ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest, ControllerUpdateResponse,
    ControllerWaitRequest, ControllerWaitResponse,
};
use berth_containerd_api::containerd::types::{Metric, Platform};
use berth_core::objects::Sandbox;
use berth_shim_client::{NewSandbox, RootfsMount};
use berth_types::{Classify as _, ErrorClass, Timestamp};
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::Answer;
use crate::convert::{instant, sandbox_from_wire};
use crate::status::IntoStatus as _;
use crate::{Face, tenant};

const CONTROLLER: &str = "shim";

fn check_controller(name: &str) -> Result<(), Status> {
    match name {
        "" | CONTROLLER => Ok(()),
        other => Err(Status::not_found(format!("sandbox controller {other:?}: not found; there is {CONTROLLER:?}"))),
    }
}

fn any((type_url, value): (String, Vec<u8>)) -> Any {
    Any { type_url, value }
}

fn new_sandbox(request: &mut ControllerCreateRequest) -> NewSandbox {
    let mounts = std::mem::take(&mut request.rootfs).into_iter().map(|mount| RootfsMount {
        fstype: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    NewSandbox {
        rootfs: mounts.collect(),
        options: request.options.take().map(|any| (any.type_url, any.value)),
        netns_path: std::mem::take(&mut request.netns_path),
        annotations: std::mem::take(&mut request.annotations),
    }
}

#[tonic::async_trait]
impl Controller for Face {
    async fn create(&self, request: Request<ControllerCreateRequest>) -> Answer<ControllerCreateResponse> {
        let tenant = tenant::of(&request)?;
        let mut request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let new = new_sandbox(&mut request);
        let sandbox_id = request.sandbox_id;
        let record = match request.sandbox {
            Some(sandbox) => sandbox_from_wire(sandbox),
            None => {
                let (tenant, id) = (tenant.clone(), sandbox_id.clone());
                self.objects(move |objects| objects.get::<Sandbox>(&tenant, &id)).await?
            }
        };
        if record.id != sandbox_id {
            return Err(Status::invalid_argument(format!("sandbox {:?} is not {sandbox_id:?}", record.id)));
        }
        berth_core::objects::check_identifier("sandbox id", &sandbox_id).map_err(|error| error.into_status())?;
        let (fleet, owner) = (std::sync::Arc::clone(self.engine.fleet()), tenant.clone());
        // A client that hangs up must not leave half a sandbox behind.
        let job = tokio::spawn(async move { fleet.create_sandbox(&owner, &record, new).await });
        let made = job.await.map_err(|_| Status::internal("the create ended early"))?;
        made.map_err(|error| error.into_status())?;
        let event = wire_events::SandboxCreate { sandbox_id: sandbox_id.clone() };
        self.publish(&tenant, "/sandboxes/create", &event, None);
        Ok(Response::new(ControllerCreateResponse { sandbox_id }))
    }

    async fn start(&self, request: Request<ControllerStartRequest>) -> Answer<ControllerStartResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let sandbox_id = request.sandbox_id;
        let started = self.engine.fleet().start_sandbox(&tenant, &sandbox_id).await;
        let (pid, created_at) = started.map_err(|error| error.into_status())?;
        let event = wire_events::SandboxStart { sandbox_id: sandbox_id.clone() };
        self.publish(&tenant, "/sandboxes/start", &event, None);
        Ok(Response::new(ControllerStartResponse {
            sandbox_id,
            pid,
            created_at: Some(instant(created_at)),
            ..Default::default()
        }))
    }

    async fn platform(&self, request: Request<ControllerPlatformRequest>) -> Answer<ControllerPlatformResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let member = self.engine.fleet().sandbox(&tenant, &request.sandbox_id).map_err(|e| e.into_status())?;
        let (os, architecture, variant) = member.shim.sandbox_platform().await.map_err(|e| e.into_status())?;
        let platform = Platform { os, architecture, variant, ..Default::default() };
        Ok(Response::new(ControllerPlatformResponse { platform: Some(platform) }))
    }

    async fn stop(&self, request: Request<ControllerStopRequest>) -> Answer<ControllerStopResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        // One that does not run is as stopped as it can be.
        if let Ok(member) = self.engine.fleet().sandbox(&tenant, &request.sandbox_id) {
            match member.shim.stop_sandbox(request.timeout_secs).await {
                Err(error) if ![ErrorClass::NotFound, ErrorClass::Unavailable].contains(&error.class()) => {
                    return Err(error.into_status());
                }
                _ => {}
            }
        }
        Ok(Response::new(ControllerStopResponse {}))
    }

    async fn wait(&self, request: Request<ControllerWaitRequest>) -> Answer<ControllerWaitResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let member = self.engine.fleet().sandbox(&tenant, &request.sandbox_id).map_err(|e| e.into_status())?;
        let status = member.ended().await;
        Ok(Response::new(ControllerWaitResponse {
            exit_status: status.code,
            exited_at: Some(instant(status.exited_at)),
        }))
    }

    async fn status(&self, request: Request<ControllerStatusRequest>) -> Answer<ControllerStatusResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let Ok(member) = self.engine.fleet().sandbox(&tenant, &request.sandbox_id) else {
            // As containerd answers for one that it does not know (any more).
            return Ok(Response::new(ControllerStatusResponse {
                sandbox_id: request.sandbox_id,
                exited_at: Some(instant(Timestamp::now())),
                ..Default::default()
            }));
        };
        let status = member.shim.sandbox_status(request.verbose).await.map_err(|e| e.into_status())?;
        Ok(Response::new(ControllerStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: status.pid,
            state: status.state,
            info: status.info,
            created_at: Some(instant(status.created_at)),
            exited_at: Some(instant(status.exited_at)),
            extra: status.extra.map(any),
            ..Default::default()
        }))
    }

    async fn shutdown(&self, request: Request<ControllerShutdownRequest>) -> Answer<ControllerShutdownResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let done = self.engine.fleet().shutdown_sandbox(&tenant, &request.sandbox_id).await;
        done.map_err(|error| error.into_status())?;
        Ok(Response::new(ControllerShutdownResponse {}))
    }

    async fn metrics(&self, request: Request<ControllerMetricsRequest>) -> Answer<ControllerMetricsResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        let member = self.engine.fleet().sandbox(&tenant, &request.sandbox_id).map_err(|e| e.into_status())?;
        let metric = member.shim.sandbox_metrics().await.map_err(|e| e.into_status())?;
        let metrics = Metric { timestamp: Some(instant(metric.at)), id: metric.id, data: metric.data.map(any) };
        Ok(Response::new(ControllerMetricsResponse { metrics: Some(metrics) }))
    }

    /// containerd's `shim` controller takes it and does nothing: the record is changed through the store.
    async fn update(&self, request: Request<ControllerUpdateRequest>) -> Answer<ControllerUpdateResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        check_controller(&request.sandboxer)?;
        if request.sandbox.is_none() {
            return Err(Status::invalid_argument("a sandbox must be given"));
        }
        self.engine.fleet().sandbox(&tenant, &request.sandbox_id).map_err(|error| error.into_status())?;
        Ok(Response::new(ControllerUpdateResponse {}))
    }
}
