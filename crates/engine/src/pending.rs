#![expect(clippy::unused_async, clippy::missing_errors_doc, unused_variables, reason = "pending")]
use crate::api::*;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use berth_types::*;
use tokio::sync::mpsc;

impl Engine {
    pub async fn top(&self, container_ref: &str, ps_args: &str) -> Result<Top> {
        Err(EngineError::unimplemented("top is not there yet"))
    }
    pub async fn stats(&self, container_ref: &str) -> Result<Stats> {
        Err(EngineError::unimplemented("stats is not there yet"))
    }
    pub async fn changes(&self, container_ref: &str) -> Result<Vec<Change>> {
        Err(EngineError::unimplemented("changes is not there yet"))
    }
    pub async fn prune_containers(&self, filters: &Filters) -> Result<PruneOutcome> {
        Err(EngineError::unimplemented("prune_containers is not there yet"))
    }
    pub async fn path_stat(&self, container_ref: &str, path: &str) -> Result<PathStat> {
        Err(EngineError::unimplemented("path_stat is not there yet"))
    }
    pub async fn copy_out(&self, container_ref: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        Err(EngineError::unimplemented("copy_out is not there yet"))
    }
    pub async fn copy_in(
        &self,
        container_ref: &str,
        path: &str,
        tar: ByteStream,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()> {
        Err(EngineError::unimplemented("copy_in is not there yet"))
    }
    pub async fn export(&self, container_ref: &str) -> Result<ByteStream> {
        Err(EngineError::unimplemented("export is not there yet"))
    }
    pub async fn images(&self, all: bool, filters: &Filters) -> Result<Vec<ImageView>> {
        Err(EngineError::unimplemented("images is not there yet"))
    }
    pub async fn image(&self, image_ref: &str) -> Result<ImageView> {
        Err(EngineError::unimplemented("image is not there yet"))
    }
    pub async fn history(&self, image_ref: &str) -> Result<Vec<HistoryEntry>> {
        Err(EngineError::unimplemented("history is not there yet"))
    }
    pub async fn tag(&self, image_ref: &str, target: &str) -> Result<()> {
        Err(EngineError::unimplemented("tag is not there yet"))
    }
    pub async fn remove_image(&self, image_ref: &str, force: bool, no_prune: bool) -> Result<Vec<ImageDeleted>> {
        Err(EngineError::unimplemented("remove_image is not there yet"))
    }
    pub async fn prune_images(&self, filters: &Filters) -> Result<PruneOutcome> {
        Err(EngineError::unimplemented("prune_images is not there yet"))
    }
    /// docker-archive or OCI archive, plain, gzip or zstd. Returns the loaded references (or ids where untagged).
    pub async fn load(&self, tar: ByteStream, progress: mpsc::Sender<Progress>) -> Result<Vec<String>> {
        Err(EngineError::unimplemented("load is not there yet"))
    }
    pub async fn save(&self, image_refs: &[String]) -> Result<ByteStream> {
        Err(EngineError::unimplemented("save is not there yet"))
    }
    /// A root file system tar becomes a one-layer image; returns its id.
    pub async fn import(
        &self,
        tar: ByteStream,
        reference: Option<&str>,
        message: &str,
        changes: &[String],
        progress: mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        Err(EngineError::unimplemented("import is not there yet"))
    }
    pub async fn commit(&self, request: CommitRequest) -> Result<Digest> {
        Err(EngineError::unimplemented("commit is not there yet"))
    }
    pub async fn info(&self) -> Result<InfoView> {
        Err(EngineError::unimplemented("info is not there yet"))
    }
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        Err(EngineError::unimplemented("disk_usage is not there yet"))
    }
    /// The default bridge, for `GET /networks`: (id, name, driver, subnet, gateway).
    pub async fn networks(&self) -> Result<Vec<NetworkSummary>> {
        Err(EngineError::unimplemented("networks is not there yet"))
    }
    pub async fn release(&self) -> Result<()> {
        Err(EngineError::unimplemented("release"))
    }
    pub(crate) fn load_embedded_hello(&self, name: &str) -> Result<bool> {
        Ok(false)
    }
}
