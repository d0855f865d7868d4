//! `explain`: a running container as it is in the kernel. Each line has what was asked and why, what is in force, and the file that
//! proves it; where the two differ, the line says so. What was asked is made anew from the record by the same pure functions that
//! planned the start, so it follows `update`.
//!
//! One module per part of the kernel, each a pure comparison of texts with a thin reader above it. Nothing is changed.

mod cgroup;
mod limit;
mod mount_table;
mod mounts;
mod namespaces;
mod network;
mod process;

use berth_oci::runtime::Spec;
use berth_types::ContainerId;
use serde::Serialize;

use crate::api::Status;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::host_objects::{self, HostObjects};
use crate::record::Record;
use crate::request::Request;
use crate::request::security::SeccompMode;
use crate::spec::{self, NamespacePaths, Reason, SpecInput};

/// Longest kernel file that is read: a mount table of some thousand lines.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A container as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainReport {
    pub id: ContainerId,
    pub name: String,
    pub image: String,
    pub status: Status,
    pub pid: u32,
    pub lines: Vec<ExplainLine>,
    /// Lines on which the kernel differs from what was asked.
    pub drifts: usize,
}

/// One thing of the container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExplainLine {
    /// `namespaces`, `cgroup`, `mounts`, `process`, `devices`, `network`
    pub section: &'static str,
    pub object: String,
    /// `None`: nobody asked, so it is the kernel's own default.
    pub asked: Option<String>,
    /// `None`: it cannot be read, or is not there.
    pub in_force: Option<String>,
    /// Which wish, default or part of the image it comes from.
    pub reason: String,
    /// The file, or the question to the kernel, that proves it.
    pub proof: String,
    /// What differs.
    pub drift: Option<String>,
}

/// What every part reads.
struct Subject<'a> {
    engine: &'a Engine,
    record: &'a Record,
    request: &'a Request,
    spec: &'a Spec,
    reasons: &'a [Reason],
    pid: u32,
}

impl Engine {
    /// # Errors
    /// `FailedPrecondition` when it does not run: then there is nothing of it in the kernel.
    pub async fn explain(&self, container_ref: &str) -> Result<ExplainReport> {
        let container = self.find(container_ref)?;
        self.blocking(move |engine| engine.explain_now(&container)).await
    }

    fn explain_now(&self, container: &Container) -> Result<ExplainReport> {
        let record = container.record();
        if !record.state.is_running() {
            return Err(EngineError::conflict(format!(
                "container {} is not running: nothing of it is in the kernel",
                record.name
            ))
            .with_hint(format!("why it ended: berth why {0}; what a start would do: berth run --plan", record.name)));
        }
        let request = Request::parse(&record.config, &record.host, &self.inner.facts)?;
        let (spec, reasons) = self.spec_again(&record, &request)?;
        let subject = Subject {
            engine: self,
            record: &record,
            request: &request,
            spec: &spec,
            reasons: &reasons,
            pid: record.state.pid,
        };
        let parts =
            [namespaces::lines, cgroup::lines, mounts::lines, process::lines, cgroup::device_lines, network::lines];
        let lines: Vec<ExplainLine> = parts.iter().flat_map(|part| part(&subject)).collect();
        // It may have ended under our eyes; half a picture would look like drift.
        if !container.lock().record.state.is_running() {
            return Err(EngineError::conflict(format!("container {} has just ended", record.name)));
        }
        Ok(ExplainReport {
            drifts: lines.iter().filter(|line| line.drift.is_some()).count(),
            lines,
            status: record.state.status,
            pid: record.state.pid,
            image: record.image_name.clone(),
            name: record.name.clone(),
            id: record.id.clone(),
        })
    }

    /// The spec and its reasons from the record as it is now.
    pub(crate) fn spec_again(&self, record: &Record, request: &Request) -> Result<(Spec, Vec<Reason>)> {
        let mut held = Vec::new();
        let mut objects = HostObjects::look_up(record, request)?;
        objects.volumes = self.volume_sources(record, request, &mut held)?;
        objects.shared_shm = self.shared_shm(request)?;
        let bundle = self.inner.tasks.bundle(&record.id);
        let id_maps = host_objects::id_maps(record, request);
        let seccomp = (request.security.seccomp != SeccompMode::Unconfined).then(|| self.inner.paths.seccomp());
        let init = (record.host.init == Some(true)).then(|| self.inner.paths.init_binary());
        Ok(spec::generate(&SpecInput {
            record,
            request,
            facts: &self.inner.facts,
            cgroup_path: &self.cgroup_path(record),
            files_dir: bundle.path(),
            namespaces: &NamespacePaths::default(),
            id_maps: &id_maps,
            init_binary: init.as_deref(),
            seccomp_program: seccomp.as_deref(),
            devices: &objects.devices,
            block_devices: &objects.block_devices,
            volumes: &objects.volumes,
            shared_shm: objects.shared_shm.as_deref(),
        }))
    }
}

impl Subject<'_> {
    /// `/proc/<pid>/<name>` of the container's first process.
    fn proc_path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    fn proc_text(&self, name: &str) -> Option<String> {
        read(&self.proc_path(name))
    }
}

/// A kernel file; `None` when it is not there or cannot be read.
fn read(path: &str) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}
