//! The Sandbox service (`containerd.runtime.sandbox.v1`): wire messages in, calls on the sandbox, wire messages out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_proto::instant;
use berth_proto::protobuf::MessageField;
use berth_proto::sandbox::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, Platform, PlatformRequest,
    PlatformResponse, Sandbox, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse,
    StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use berth_proto::task::Mount;
use berth_proto::ttrpc::{Result, r#async::TtrpcContext};
use berth_types::{Timestamp, architecture};

use super::{NewSandbox, Standing};
use crate::error::TaskError;
use crate::process::Status;
use crate::service::to_its_end;
use crate::task::Shim;

/// containerd's words.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

pub(crate) struct SandboxService(pub(crate) Arc<Shim>);

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> Result<CreateSandboxResponse> {
        let mounts = request.rootfs.into_iter().map(|mount| Mount {
            type_: mount.type_,
            source: mount.source,
            target: mount.target,
            options: mount.options,
            ..Default::default()
        });
        let new = NewSandbox {
            id: request.sandbox_id,
            bundle: PathBuf::from(request.bundle_path),
            rootfs: mounts.collect(),
            options: request.options.into_option(),
            netns_path: request.netns_path,
            annotations: request.annotations.into_iter().collect(),
        };
        let shim = Arc::clone(&self.0);
        to_its_end("create", async move { shim.create_sandbox(new).await }).await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(&self, _: &TtrpcContext, request: StartSandboxRequest) -> Result<StartSandboxResponse> {
        let shim = Arc::clone(&self.0);
        let started = to_its_end("start", async move { shim.start_sandbox(&request.sandbox_id).await });
        let (pid, created_at) = started.await?;
        Ok(StartSandboxResponse { pid, created_at: instant::into_wire(created_at), ..Default::default() })
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> Result<PlatformResponse> {
        self.0.standing(&request.sandbox_id)?;
        let (architecture, variant) = architecture::host();
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, request: StopSandboxRequest) -> Result<StopSandboxResponse> {
        let patience = Duration::from_secs(request.timeout_secs.into());
        self.0.stop_sandbox(&request.sandbox_id, patience).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, request: WaitSandboxRequest) -> Result<WaitSandboxResponse> {
        let exit = self.0.wait_sandbox(&request.sandbox_id).await?;
        Ok(WaitSandboxResponse { exit_status: exit.code, exited_at: instant::into_wire(exit.at), ..Default::default() })
    }

    async fn sandbox_status(&self, _: &TtrpcContext, request: SandboxStatusRequest) -> Result<SandboxStatusResponse> {
        let standing = self.0.standing(&request.sandbox_id)?;
        let mut response = SandboxStatusResponse {
            pid: standing.pid,
            state: if standing.status == Status::Running { READY } else { NOT_READY }.to_owned(),
            created_at: instant::into_wire(standing.created_at),
            sandbox_id: request.sandbox_id,
            ..Default::default()
        };
        if let Status::Exited(exit) = standing.status {
            response.exited_at = instant::into_wire(exit.at);
        }
        if request.verbose {
            response.info.insert("info".to_owned(), info(&standing)?);
        }
        Ok(response)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> Result<PingResponse> {
        let standing = self.0.standing(&request.sandbox_id)?;
        match standing.status {
            Status::Running => Ok(PingResponse::default()),
            other => Err(TaskError::State { operation: "ping the sandbox", state: other.name() }.into()),
        }
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> Result<ShutdownSandboxResponse> {
        self.0.shut_down_sandbox(&request.sandbox_id).await?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> Result<SandboxMetricsResponse> {
        self.0.standing(&request.sandbox_id)?;
        let data = self.0.stats(&request.sandbox_id).await?;
        let mut response = SandboxMetricsResponse::default();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = instant::into_wire(Timestamp::now());
        metric.id = request.sandbox_id;
        metric.data = MessageField::some(data);
        Ok(response)
    }
}

/// What `crictl inspectp` shows, in the words of containerd's own controller.
fn info(standing: &Standing) -> std::result::Result<String, TaskError> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Info<'a> {
        pid: u32,
        process_status: &'a str,
        runtime_type: &'a str,
        runtime_spec: serde_json::Value,
    }
    let failed = |source| TaskError::Document { what: "the sandbox's document", source };
    let info = Info {
        pid: standing.pid,
        process_status: standing.status.name(),
        runtime_type: berth_shim_client::OWN_RUNTIME,
        runtime_spec: serde_json::from_slice(&standing.document).map_err(failed)?,
    };
    serde_json::to_string(&info).map_err(failed)
}
