//! The steps of a start, in order, each timed, each undone in reverse when a later one fails (S-150 to S-155).
//!
//! ```text
//! snapshot.prepare (at create) -> network.attach | shim.start (side by side) -> bundle.write -> task.create -> task.start
//! ```

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{Bundle, Task};
use berth_network::Endpoint;
use berth_oci::runtime::LinuxSeccomp;
use berth_rootfs::OverlayRootfs;
use berth_shim_client::{IoUris, RootfsMount, RuntimeChoice, ShimError};
use berth_types::Span;

use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::host_objects::{self, HostObjects};
use crate::network_files;
use crate::record::Record;
use crate::recovery;
use crate::request::namespaces::{NetworkMode, NsMode};
use crate::request::{LogSettings, Request};
use crate::spec::{self, NamespacePaths, SpecInput};
use crate::trace::{now_ns, span};

/// What a start keeps of the spans before it.
const CREATE_STEPS: [&str; 3] = ["container.create", "metadata.create", "snapshot.prepare"];
/// For everything that is undone after a failure, together.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Launch<'a> {
    engine: &'a Engine,
    container: &'a Arc<Container>,
    record: Record,
    spans: Vec<Span>,
    endpoint: Option<Endpoint>,
    task: Option<Task>,
    bundle: Bundle,
}

/// What is held open until the container's init is in its namespaces.
struct Prepared {
    request: Request,
    rootfs: OverlayRootfs,
    namespaces: NamespacePaths,
    host_objects: HostObjects,
    seccomp_program: Option<PathBuf>,
    /// For another runtime than ours, which takes no compiled program.
    seccomp_document: Option<LinuxSeccomp>,
    /// `None`: our own.
    runtime: Option<RuntimeChoice>,
    endpoint: Option<Endpoint>,
    held: Vec<OwnedFd>,
    spans: Vec<Span>,
}

impl<'a> Launch<'a> {
    pub(super) fn new(engine: &'a Engine, container: &'a Arc<Container>) -> Self {
        let bundle = engine.inner.tasks.bundle(&container.id);
        Self { engine, container, record: container.record(), spans: Vec::new(), endpoint: None, task: None, bundle }
    }

    /// Does all steps; on failure everything done is undone and the first error returned.
    pub(super) async fn run(mut self) -> Result<Arc<Run>> {
        match self.steps().await {
            Ok(task) => {
                let mut inner = self.container.lock();
                // Steps of the create stay, those of an earlier start go.
                inner.spans.retain(|span| CREATE_STEPS.contains(&span.name.as_str()));
                inner.spans.append(&mut self.spans);
                drop(inner);
                Ok(Run::new(task))
            }
            Err(error) => {
                if tokio::time::timeout(ROLLBACK_DEADLINE, self.roll_back()).await.is_err() {
                    tracing::error!(container_id = %self.container.id, "roll-back of a start did not end in time");
                }
                Err(error)
            }
        }
    }

    async fn steps(&mut self) -> Result<Task> {
        let start_ns = now_ns();
        self.bundle.create()?;
        self.spans.push(span("bundle.create", "", start_ns));
        self.engine.inner.faults.check("bundle.create")?;
        let (prepared, shim) =
            tokio::join!(self.prepare(), timed("shim.start", self.engine.inner.tasks.start_shim(&self.container.id)));
        let (shim, shim_span) = shim;
        // Both have ended before either may fail: what each made is known to the roll-back.
        let shim = shim.map_err(EngineError::from);
        let prepared = prepared.map(|mut prepared| {
            self.endpoint = prepared.endpoint.take();
            self.spans.append(&mut prepared.spans);
            prepared
        });
        match shim {
            Ok(task) => self.task = Some(task),
            Err(error) => return Err(prepared.err().unwrap_or(error)),
        }
        let prepared = prepared?;
        self.spans.push(shim_span);
        self.engine.inner.faults.check("network.attach")?;
        self.engine.inner.faults.check("shim.start")?;
        self.write_bundle(&prepared)?;
        self.remember_endpoint()?;
        self.create_task(&prepared).await?;
        drop(prepared.held);
        self.start_task().await?;
        self.task.take().ok_or_else(|| EngineError::internal("the task is gone"))
    }

    /// Everything that may block: look-ups on the host and the network, on one blocking thread.
    async fn prepare(&self) -> Result<Prepared> {
        self.engine.await_joined(self.container, &self.record.host).await?;
        let (record, container) = (self.record.clone(), Arc::clone(self.container));
        self.engine.blocking(move |engine| prepare_now(engine, &record, &container)).await
    }

    /// The endpoint must be known after a crash, or its address would be given to another container: it is in the bundle before
    /// there is a task.
    fn remember_endpoint(&mut self) -> Result<()> {
        if let Some(endpoint) = &self.endpoint {
            recovery::keep_endpoint(&self.bundle, endpoint)?;
        }
        self.record.endpoint.clone_from(&self.endpoint);
        self.container.lock().record.endpoint.clone_from(&self.endpoint);
        self.engine.inner.faults.check("endpoint.keep")
    }

    fn write_bundle(&mut self, prepared: &Prepared) -> Result<()> {
        let start_ns = now_ns();
        let engine = self.engine;
        let network = &prepared.request.namespaces.network;
        network_files::write(&self.bundle, &self.record, network, self.endpoint.as_ref())?;
        let init = self.record.host.init == Some(true);
        let init_binary = if init { Some(engine.init_binary()?) } else { None };
        let cgroup_path = engine.cgroup_path(&self.record);
        let id_maps = host_objects::id_maps(&self.record, &prepared.request);
        let (mut spec, _reasons) = spec::generate(&SpecInput {
            record: &self.record,
            request: &prepared.request,
            facts: &engine.inner.facts,
            cgroup_path: &cgroup_path,
            files_dir: self.bundle.path(),
            namespaces: &prepared.namespaces,
            id_maps: &id_maps,
            init_binary: init_binary.as_deref(),
            seccomp_program: prepared.seccomp_program.as_deref(),
            devices: &prepared.host_objects.devices,
            block_devices: &prepared.host_objects.block_devices,
            volumes: &prepared.host_objects.volumes,
            shared_shm: prepared.host_objects.shared_shm.as_deref(),
        });
        if let (Some(linux), Some(document)) = (spec.linux_mut(), &prepared.seccomp_document) {
            linux.set_seccomp(Some(document.clone()));
        }
        let json = serde_json::to_vec(&spec)
            .map_err(|error| EngineError::internal(format!("cannot encode the container's spec: {error}")))?;
        self.bundle.write("config.json", 0o600, &json)?;
        self.spans.push(span("bundle.write", "config.json", start_ns));
        engine.inner.faults.check("bundle.write")
    }

    async fn create_task(&mut self, prepared: &Prepared) -> Result<()> {
        let task = self.task.as_ref().ok_or_else(|| EngineError::internal("the task is gone"))?;
        let io = io_uris(&self.record, &self.engine.inner.paths.log(&self.record.id))?;
        let start_ns = now_ns();
        let created = task.create(&[overlay_mount(&prepared.rootfs)], &io, prepared.runtime.as_ref()).await;
        self.spans.push(span("task.create", self.record.id.short(), start_ns));
        created.map_err(|error| task_failed(&error))?;
        self.engine.inner.faults.check("task.create")?;
        let attaches = std::mem::take(&mut self.container.lock().pending_attaches);
        for (client, options) in attaches {
            // A client that hung up meanwhile does not stop the start.
            if let Err(error) = task.attach(None, client, &options).await {
                tracing::debug!(container_id = %self.record.id, "cannot attach a waiting client: {}", berth_types::report(&error));
            }
        }
        Ok(())
    }

    async fn start_task(&mut self) -> Result<()> {
        let task = self.task.as_ref().ok_or_else(|| EngineError::internal("the task is gone"))?;
        let start_ns = now_ns();
        let started = task.start().await;
        self.spans.push(span("task.start", self.record.id.short(), start_ns));
        self.spans.append(&mut self.bundle.trace());
        started.map_err(|error| task_failed(&error))?;
        self.engine.inner.faults.check("task.start")
    }

    /// Reverse order, past failures: the caller keeps the first error.
    async fn roll_back(&mut self) {
        let id = &self.container.id;
        let log = |what: &str, error: &EngineError| tracing::warn!(container_id = %id, "roll-back of {what}: {error}");
        if let Some(task) = self.task.take()
            && let Err(error) = self.engine.discard_task(&task).await
        {
            log("the task", &error);
        }
        if let Some(endpoint) = self.endpoint.take() {
            if let Err(error) = self.engine.detach_network(endpoint).await {
                log("the network", &error);
            }
            self.container.lock().record.endpoint = None;
        }
        if let Err(error) = self.bundle.remove() {
            log("the bundle", &error.into());
        }
    }
}

async fn timed<T>(name: &str, work: impl Future<Output = T>) -> (T, Span) {
    let start_ns = now_ns();
    let done = work.await;
    (done, span(name, "", start_ns))
}

/// The program of the container could not be executed: 126, or 127 when there is none. Everything else is 125.
fn task_failed(error: &berth_core::TaskError) -> EngineError {
    let exit_code = match error {
        berth_core::TaskError::Shim { source, .. } => exec_exit_code(source),
        _ => 125,
    };
    let engine_error = match error {
        // The shim's own words are the whole story; "create failed in the shim" adds nothing for a person.
        berth_core::TaskError::Shim { source: ShimError::Remote { class, message }, .. } => {
            EngineError::new(*class, message.clone())
        }
        other => EngineError::new(berth_types::Classify::class(other), berth_types::report(other)),
    };
    let engine_error = engine_error.with_exit_code(exit_code);
    match exit_code {
        127 => engine_error.with_hint("the program is not in the image: check its name and the PATH of the container"),
        _ => engine_error,
    }
}

/// Exit code for a failed start or exec.
pub(crate) fn exec_exit_code(error: &ShimError) -> u8 {
    match error {
        ShimError::Remote { class: berth_types::ErrorClass::NotFound, .. } if error.is_exec_failure() => 127,
        _ if error.is_exec_failure() => 126,
        _ => 125,
    }
}

fn prepare_now(engine: &Engine, record: &Record, container: &Container) -> Result<Prepared> {
    let start_ns = now_ns();
    let request = Request::parse(&record.config, &record.host, &engine.inner.facts)?;
    let mut held = Vec::new();
    let mut host_objects = HostObjects::look_up(record, &request)?;
    host_objects.volumes = engine.volume_sources(record, &request, &mut held)?;
    host_objects.shared_shm = engine.shared_shm(&request)?;
    let mut spans = vec![span("request.check", "", start_ns)];
    let start_ns = now_ns();
    let runtime = engine.runtime_of(&record.host, &request)?;
    let (seccomp_program, seccomp_document) = match runtime {
        None => (engine.inner.seccomp.program(&request.security)?, None),
        Some(_) => (None, engine.inner.seccomp.document(&request.security)?),
    };
    spans.push(span("seccomp.compile", "", start_ns));
    let rootfs = engine.rootfs_to_start(container)?;
    let mut namespaces = engine.joined_namespaces(&request, &mut held)?;
    let start_ns = now_ns();
    let (network, endpoint) = attach_network(engine, record, &request)?;
    let object = endpoint.as_ref().map_or_else(|| record.host.network_mode.clone(), |e| e.ipv4.to_string());
    spans.push(span("network.attach", object, start_ns));
    engine.inner.faults.pass("network.attached");
    if let Some(fd) = network {
        namespaces.network = Some(fd_path(&fd));
        held.push(fd);
    }
    Ok(Prepared {
        request,
        rootfs,
        namespaces,
        host_objects,
        seccomp_program,
        seccomp_document,
        runtime,
        endpoint,
        held,
        spans,
    })
}

/// The shim opens it through us while we hold it.
pub(crate) fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

fn attach_network(engine: &Engine, record: &Record, request: &Request) -> Result<(Option<OwnedFd>, Option<Endpoint>)> {
    match &request.namespaces.network {
        NetworkMode::Joined(NsMode::Host | NsMode::Container(_) | NsMode::Path(_)) => Ok((None, None)),
        NetworkMode::None | NetworkMode::Joined(NsMode::Private) => {
            Ok((Some(engine.inner.empty_networks.take()?), None))
        }
        NetworkMode::Bridge => {
            let network = engine.network()?;
            let ports = engine.choose_ports(&request.ports)?;
            let (fd, endpoint) = network
                .attach(record.id.as_str(), &ports, None)
                .doing(|| "cannot connect to the bridge network".to_owned())?;
            Ok((Some(fd), Some(endpoint)))
        }
    }
}

/// Standard streams of a container's init as the shim takes them.
fn io_uris(record: &Record, log: &std::path::Path) -> Result<IoUris> {
    let config = &record.config;
    let stdin =
        if config.open_stdin { format!("attach://?once={}", u8::from(config.stdin_once)) } else { String::new() };
    let stdout = match record.host.log_driver.as_str() {
        "none" => "attach://".to_owned(),
        _ => {
            let settings = LogSettings::parse(&record.host)?;
            format!(
                "json-file://{}?max-size={}&max-file={}",
                log.display(),
                settings.max_size_bytes,
                settings.max_files
            )
        }
    };
    let stderr = if config.tty { String::new() } else { stdout.clone() };
    Ok(IoUris { stdin, stdout, stderr, terminal: config.tty })
}

/// The root file system in mount(8)'s terms; the shim mounts it detached. Layers are stored as in the image: a user namespace is given them
/// by the mount (our own option `idmap`).
fn overlay_mount(rootfs: &OverlayRootfs) -> RootfsMount {
    let escaped = |path: &std::path::Path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    let lowers: Vec<String> = rootfs.lowers.iter().map(|path| escaped(path)).collect();
    let mut options = Vec::new();
    if !lowers.is_empty() {
        options.push(format!("lowerdir={}", lowers.join(":")));
    }
    options.extend(rootfs.upper.iter().map(|path| format!("upperdir={}", path.display())));
    options.extend(rootfs.work.iter().map(|path| format!("workdir={}", path.display())));
    if rootfs.is_volatile {
        options.push("volatile".to_owned());
    }
    options.push("idmap".to_owned());
    RootfsMount { fstype: "overlay".to_owned(), source: "overlay".to_owned(), target: String::new(), options }
}
