//! The calls of a shim that runs a sandbox (pod), each with a deadline. A shim without the service answers `Unimplemented`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use berth_proto::instant;
use berth_proto::protobuf::Message;
use berth_proto::sandbox::{self as wire, SERVICE};
use berth_types::Timestamp;

use crate::client::packed;
use crate::{ExitStatus, RootfsMount, ShimClient, ShimError};

/// Making a sandbox may boot a machine.
const SLOW_CALL: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(30);
/// Beyond what a stop may take by itself.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// What a sandbox is to be, beyond its document in the bundle.
#[derive(Debug, Clone, Default)]
pub struct NewSandbox {
    pub rootfs: Vec<RootfsMount>,
    pub options: Option<(String, Vec<u8>)>,
    pub netns_path: String,
    pub annotations: BTreeMap<String, String>,
}

/// What a sandbox is.
#[derive(Debug, Clone, Default)]
pub struct SandboxStatus {
    pub pid: u32,
    /// In the shim's words; containerd's are `SANDBOX_READY` and `SANDBOX_NOTREADY`.
    pub state: String,
    pub info: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub exited_at: Timestamp,
    pub extra: Option<(String, Vec<u8>)>,
}

/// A measurement: when, of what, and the message.
#[derive(Debug, Clone, Default)]
pub struct SandboxMetric {
    pub at: Timestamp,
    pub id: String,
    pub data: Option<(String, Vec<u8>)>,
}

impl ShimClient {
    async fn sandbox_call<Req: Message, Resp: Message>(
        &self,
        method: &'static str,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ShimError> {
        tokio::time::timeout(timeout, self.service_call(SERVICE, method, request))
            .await
            .unwrap_or(Err(ShimError::Deadline { call: method, seconds: timeout.as_secs() }))
    }

    /// # Errors
    /// The shim's.
    pub async fn create_sandbox(&self, bundle: &Path, new: NewSandbox) -> Result<(), ShimError> {
        let mounts = new.rootfs.into_iter().map(|mount| wire::Mount {
            type_: mount.fstype,
            source: mount.source,
            target: mount.target,
            options: mount.options,
            ..Default::default()
        });
        let request = wire::CreateSandboxRequest {
            sandbox_id: self.id(),
            bundle_path: bundle.display().to_string(),
            rootfs: mounts.collect(),
            options: packed(new.options),
            netns_path: new.netns_path,
            annotations: new.annotations.into_iter().collect(),
            ..Default::default()
        };
        self.sandbox_call("CreateSandbox", &request, SLOW_CALL).await.map(|_: wire::CreateSandboxResponse| ())
    }

    /// Its pid on the host, and since when it runs.
    ///
    /// # Errors
    /// The shim's.
    pub async fn start_sandbox(&self) -> Result<(u32, Timestamp), ShimError> {
        let request = wire::StartSandboxRequest { sandbox_id: self.id(), ..Default::default() };
        let reply: wire::StartSandboxResponse = self.sandbox_call("StartSandbox", &request, SLOW_CALL).await?;
        Ok((reply.pid, instant::from_wire(&reply.created_at)))
    }

    /// Operating system, architecture and variant that its containers run on.
    ///
    /// # Errors
    /// The shim's.
    pub async fn sandbox_platform(&self) -> Result<(String, String, String), ShimError> {
        let request = wire::PlatformRequest { sandbox_id: self.id(), ..Default::default() };
        let reply: wire::PlatformResponse = self.sandbox_call("Platform", &request, CALL).await?;
        let platform = reply.platform.into_option().unwrap_or_default();
        Ok((platform.os, platform.architecture, platform.variant))
    }

    /// # Errors
    /// The shim's.
    pub async fn stop_sandbox(&self, timeout_seconds: u32) -> Result<(), ShimError> {
        let request =
            wire::StopSandboxRequest { sandbox_id: self.id(), timeout_secs: timeout_seconds, ..Default::default() };
        let patience = STOP_MARGIN + Duration::from_secs(timeout_seconds.into());
        self.sandbox_call("StopSandbox", &request, patience).await.map(|_: wire::StopSandboxResponse| ())
    }

    /// Returns when it has ended, however long that takes.
    ///
    /// # Errors
    /// `Unavailable` when the shim died meanwhile.
    pub async fn wait_sandbox(&self) -> Result<ExitStatus, ShimError> {
        let request = wire::WaitSandboxRequest { sandbox_id: self.id(), ..Default::default() };
        let reply: wire::WaitSandboxResponse = self.service_call(SERVICE, "WaitSandbox", &request).await?;
        Ok(ExitStatus { code: reply.exit_status, exited_at: instant::from_wire(&reply.exited_at) })
    }

    /// # Errors
    /// The shim's.
    pub async fn sandbox_status(&self, is_verbose: bool) -> Result<SandboxStatus, ShimError> {
        let request = wire::SandboxStatusRequest { sandbox_id: self.id(), verbose: is_verbose, ..Default::default() };
        let reply: wire::SandboxStatusResponse = self.sandbox_call("SandboxStatus", &request, CALL).await?;
        Ok(SandboxStatus {
            pid: reply.pid,
            state: reply.state,
            info: reply.info.into_iter().collect(),
            created_at: instant::from_wire(&reply.created_at),
            exited_at: instant::from_wire(&reply.exited_at),
            extra: reply.extra.into_option().map(|any| (any.type_url, any.value)),
        })
    }

    /// Ends the sandbox and its shim.
    ///
    /// # Errors
    /// The shim's.
    pub async fn shutdown_sandbox(&self) -> Result<(), ShimError> {
        let request = wire::ShutdownSandboxRequest { sandbox_id: self.id(), ..Default::default() };
        self.sandbox_call("ShutdownSandbox", &request, CALL).await.map(|_: wire::ShutdownSandboxResponse| ())
    }

    /// # Errors
    /// The shim's.
    pub async fn sandbox_metrics(&self) -> Result<SandboxMetric, ShimError> {
        let request = wire::SandboxMetricsRequest { sandbox_id: self.id(), ..Default::default() };
        let reply: wire::SandboxMetricsResponse = self.sandbox_call("SandboxMetrics", &request, CALL).await?;
        let metric = reply.metrics.into_option().unwrap_or_default();
        Ok(SandboxMetric {
            at: instant::from_wire(&metric.timestamp),
            id: metric.id,
            data: metric.data.into_option().map(|any| (any.type_url, any.value)),
        })
    }

    /// The same shim for a task of its own: of a container that lies in this sandbox.
    #[must_use]
    pub fn for_task(&self, id: &berth_types::ContainerId, bundle: &Path) -> Self {
        self.renamed(id.as_str().to_owned(), bundle.to_owned())
    }
}
