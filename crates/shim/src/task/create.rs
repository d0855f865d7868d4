//! Create: documents are read, standard I/O is opened, and the runtime makes the container up to the point where init waits.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::annotation;
use berth_oci::document::Parsed;
use berth_oci::runtime::{LinuxNamespaceType, Spec};
use berth_proto::attach::SOCKET_NAME;
use berth_proto::choice::RuntimeChoice;
use berth_proto::events;
use berth_proto::protobuf::MessageField;
use berth_proto::task::Mount;
use berth_rootfs::RootDir;
use berth_runtime::{CgroupDriver, Container, CreateOptions, Rootfs, SystemdInstance, Tuning, resolve_user};
use berth_shim_client::find_executable;
use berth_types::Span;

use super::machine::{Machine, command};
use super::relay::{NewRelay, Patience, Relay};
use super::restore::{Progress, Saved};
use super::trace::{Trace, now_ns};
use super::{Options, Shim, Task, rootfs, runtime};
use crate::aside::{MEANWHILE, aside};
use crate::error::TaskError;
use crate::io::{IoRequest, Owner, ProcessIo, Streams, Subject, serve_attach};
use crate::oci::{self, CommandError, Document, NewContainer, OciContainer, OciRuntime, Place};
use crate::process::{Addresses, Process, Status};
use crate::record::{OtherShim, Record};
use crate::{log, reaper, socket};

pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;
const SECCOMP_BYTES_MAX: u64 = 1 << 20;
/// Where a root file system is mounted for runtimes that want a path, below the bundle.
pub(super) const ROOTFS: &str = "rootfs";

#[derive(Debug)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) addresses: Addresses,
    pub(crate) options: Options,
    /// Directory of what its processes are restored from when it is started.
    pub(crate) checkpoint: Option<PathBuf>,
    /// In place of the bundle's `config.json`.
    pub(crate) document: Option<Vec<u8>>,
}

/// An id that somebody makes a task of.
struct Reservation {
    shim: Arc<Shim>,
    id: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shim.creating().remove(&self.id);
        self.shim.made.notify_one();
    }
}

/// What the documents say.
struct Documents {
    config: Vec<u8>,
    spec: Spec,
    rootfs: Rootfs,
    seccomp_program: Option<Vec<u8>>,
}

/// What was made of them.
struct Made {
    machine: Machine,
    pid: u32,
    streams: Streams,
    /// Master of init's terminal.
    console: Option<OwnedFd>,
    spans: Vec<Span>,
    record: Record,
}

impl Shim {
    /// Returns init's pid on the host.
    pub(crate) async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<u32, TaskError> {
        let begun = now_ns();
        let _reservation = self.reserve(&request.id)?;
        let _hold = self.holds.hold();
        if let Some(path) = &request.options.shim_cgroup {
            move_to(path)?;
        }
        let io = open_io(&request.addresses, self, &request.id, request.options.io_owner)?;
        let made = match io.ready().await.map_err(TaskError::from).and_then(|()| self.documents(&request)) {
            Ok(documents) => self.make(&request, documents, &io).await,
            Err(error) => Err(error),
        };
        let created = match made {
            Ok((made, spec)) => self.finish(&request, made, &spec, &io, begun).await,
            Err(error) => Err(error),
        };
        match created {
            Ok(pid) => {
                if !self.is_sandbox(&request.id) {
                    self.events.created(&created_event(request, pid));
                }
                Ok(pid)
            }
            Err(error) => {
                self.mounts.unmount(&request.bundle.join(ROOTFS));
                Record::remove(&request.bundle);
                tokio::spawn(async move { io.settle().await });
                Err(error)
            }
        }
    }

    /// The container exists: written down, then followed.
    async fn finish(
        self: &Arc<Self>,
        request: &CreateRequest,
        made: Made,
        spec: &Spec,
        io: &Arc<ProcessIo>,
        begun: u64,
    ) -> Result<u32, TaskError> {
        let pid = made.pid;
        note(&made.record, &request.bundle);
        if let Err(undone) = self.connect(request, made, spec, io, begun) {
            let (machine, error) = *undone;
            if let (_, Err(undo)) = machine.delete().await {
                log::error(&format!("roll-back of create: {}", berth_types::report(&undo)));
            }
            return Err(error);
        }
        Ok(pid)
    }

    /// From here on the id is taken, and the shim does not end.
    fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, TaskError> {
        let is_of_a_pod = self.is_of_a_pod();
        if id != self.id && !is_of_a_pod {
            let value = id.to_owned();
            return Err(TaskError::Argument { what: "task id (this shim was started for another)", value });
        }
        let has_another = self.lock().keys().any(|other| other == id || !is_of_a_pod);
        let is_free = !has_another && self.creating().insert(id.to_owned());
        if !is_free {
            return Err(TaskError::TaskExists { id: id.to_owned() });
        }
        Ok(Reservation { shim: Arc::clone(self), id: id.to_owned() })
    }

    /// Its streams are read from now on, and its end is awaited. A container that cannot be followed comes back.
    fn connect(
        self: &Arc<Self>,
        request: &CreateRequest,
        mut made: Made,
        spec: &Spec,
        io: &Arc<ProcessIo>,
        begun: u64,
    ) -> Result<(), Box<(Machine, TaskError)>> {
        let pid = made.pid;
        let init = Process::new(request.id.clone(), String::new(), request.addresses.clone(), Arc::clone(io), None);
        let watch = |source| TaskError::Watch { pid, source };
        let connected = (|| {
            let pidfd = made.machine.init_pidfd().map(|pidfd| pidfd.try_clone().map(Arc::new));
            init.set_live(pid, pidfd.transpose().map_err(watch)?, Status::Created);
            match &made.machine {
                Machine::Relay(relay) => {
                    self.follow_relayed(relay, &init);
                    return Ok(());
                }
                // Its streams are made with its processes.
                Machine::Saved(_) => return Ok(()),
                Machine::Own(_) | Machine::Command(_) | Machine::Away => {}
            }
            io.connect(std::mem::take(&mut made.streams), made.console.take())?;
            if let Some(pidfd) = made.machine.init_pidfd() {
                let exited = reaper::follow(pidfd).map_err(watch)?;
                tokio::spawn(Arc::clone(self).init_ends(Arc::clone(&init), exited));
            }
            Ok(())
        })();
        if let Err(error) = connected {
            return Err(Box::new((made.machine, error)));
        }
        let mut task = Task {
            bundle: request.bundle.clone(),
            init,
            execs: HashMap::new(),
            is_paused: false,
            shares_pid_ns: shares_pid_ns(spec),
            oom_score: spec.process().as_ref().and_then(|process| process.oom_score_adj()),
            io_owner: request.options.io_owner,
            oom_watch: self.watch_memory(&request.id, made.machine.cgroup()),
            attach_job: self.listen_for_clients(request),
            oom_kills_told: 0,
            trace: Trace { spans: made.spans, is_written: has_annotation(spec, annotation::TRACE, "true") },
            machine: made.machine,
        };
        task.trace.finish("task.create", &request.id, begun, &request.bundle);
        self.lock().insert(request.id.clone(), task);
        Ok(())
    }

    /// The first task's socket is there since the shim began to serve; further ones of its pod have bundles of their own.
    fn listen_for_clients(self: &Arc<Self>, request: &CreateRequest) -> Option<tokio::task::JoinHandle<()>> {
        if request.id == self.id {
            return None;
        }
        let listener = socket::listen_in(&request.bundle, SOCKET_NAME).and_then(crate::server::into_async);
        match listener {
            Ok(listener) => Some(tokio::spawn(serve_attach(listener, self.attacher(&request.id)))),
            Err(error) => {
                log::warn(&format!("nobody can attach to {}: {error}", request.id));
                None
            }
        }
    }

    async fn make(
        self: &Arc<Self>,
        request: &CreateRequest,
        documents: Documents,
        io: &Arc<ProcessIo>,
    ) -> Result<(Made, Spec), TaskError> {
        if let Some(images) = &request.checkpoint {
            return self.make_saved(request, documents, images);
        }
        let made = match &request.options.choice {
            None => return self.make_own(request, documents, io).await,
            Some(RuntimeChoice::Command { binary, arguments }) => {
                let runtime = self.oci_runtime(request, binary, arguments, &documents.spec)?;
                self.make_by_command(request, &documents, runtime, io).await?
            }
            Some(RuntimeChoice::Shim { binary, options }) => {
                self.make_by_shim(request, &documents, binary.clone(), options.clone(), io).await?
            }
        };
        Ok((made, documents.spec))
    }

    async fn make_own(
        &self,
        request: &CreateRequest,
        documents: Documents,
        io: &ProcessIo,
    ) -> Result<(Made, Spec), TaskError> {
        let Documents { spec, rootfs, seccomp_program, .. } = documents;
        let (stdio, streams) = io.streams(terminal_size(&spec))?;
        let cgroup_driver = if is_by_systemd(request, &spec) {
            CgroupDriver::Systemd(SystemdInstance::System)
        } else {
            CgroupDriver::default()
        };
        let tuning = Tuning {
            cgroup_driver,
            no_pivot: request.options.no_pivot_root,
            keep_keyring: request.options.no_new_keyring,
            meanwhile: MEANWHILE,
            ..Tuning::default()
        };
        let options = CreateOptions {
            id: request.id.parse().map_err(|source| TaskError::Id { id: request.id.clone(), source })?,
            bundle: request.bundle.clone(),
            rootfs,
            stdio,
            seccomp_program,
            tuning,
        };
        let has_hooks = spec.hooks().is_some();
        let create = move || {
            let mut spans: Vec<Span> = Vec::new();
            let container = Container::create(&spec, options, &mut spans);
            (container, spec, spans)
        };
        let (container, spec, spans) = if has_hooks { aside(create).await } else { create() };
        let mut container = container.map_err(|source| runtime("create", source))?;
        for warning in &container.warnings {
            log::warn(warning);
        }
        let pid = container.init.pid;
        let record = Record::new(pid, container.cgroup().path());
        let console = container.init.console.take();
        Ok((Made { machine: Machine::Own(Box::new(container)), pid, streams, console, spans, record }, spec))
    }

    /// Nothing in the kernel yet: criu makes what was saved when the task is started.
    fn make_saved(
        &self,
        request: &CreateRequest,
        documents: Documents,
        images: &Path,
    ) -> Result<(Made, Spec), TaskError> {
        let Documents { spec, rootfs, .. } = documents;
        if request.options.choice.is_some() {
            return Err(TaskError::Unimplemented { what: "restoring by another runtime" });
        }
        if is_by_systemd(request, &spec) {
            return Err(TaskError::Unimplemented { what: "restoring into a scope of systemd" });
        }
        let saved = Saved {
            id: request.id.parse().map_err(|source| TaskError::Id { id: request.id.clone(), source })?,
            bundle: request.bundle.clone(),
            spec: spec.clone(),
            rootfs,
            criu: self.restorer(images, request.options.criu_work.clone())?,
            progress: Progress::default(),
        };
        let machine = Machine::Saved(Arc::new(saved));
        let (streams, record) = (Streams::default(), Record::new(0, ""));
        Ok((Made { machine, pid: 0, streams, console: None, spans: Vec::new(), record }, spec))
    }

    fn oci_runtime(
        &self,
        request: &CreateRequest,
        binary: &Path,
        arguments: &[String],
        spec: &Spec,
    ) -> Result<OciRuntime, TaskError> {
        let binary = find_executable(binary, &self.surroundings.search).ok_or_else(|| TaskError::NoRuntime {
            name: binary.to_owned(),
            search: self.surroundings.search.clone(),
        })?;
        let mut arguments = arguments.to_vec();
        if is_by_systemd(request, spec) {
            arguments.push("--systemd-cgroup".to_owned());
        }
        // As runc's shim does it: one state directory per namespace.
        let root = request.options.root.as_ref().map(|root| root.join(&self.surroundings.namespace));
        Ok(OciRuntime { binary, arguments, root: root.unwrap_or_else(|| oci::state_directory(&request.bundle)) })
    }

    async fn make_by_command(
        self: &Arc<Self>,
        request: &CreateRequest,
        documents: &Documents,
        runtime: OciRuntime,
        io: &ProcessIo,
    ) -> Result<Made, TaskError> {
        let failed = |source| command("create", source);
        self.become_reaper()?;
        let (root, path) = self.root_of(request, documents).map_err(failed)?;
        let document = rewritten(documents, &root, &path).map_err(failed)?;
        let (stdio, streams) = io.streams(terminal_size(&documents.spec))?;
        let begun = now_ns();
        let id = request.id.as_str();
        let directory = oci::make_directory(&request.bundle).map_err(failed)?;
        let place = Place::new(directory, &self.surroundings.search, Arc::clone(&self.holds));
        note(&Record { runtime: Some(runtime.clone()), ..Record::new(0, "") }, &request.bundle);
        let options = &request.options;
        let flags = [("--no-pivot", options.no_pivot_root), ("--no-new-keyring", options.no_new_keyring)];
        let flags = flags.into_iter().filter_map(|(flag, is_asked)| is_asked.then_some(flag)).collect();
        let new = NewContainer { runtime, id, place, document, root, stdio, flags };
        let (container, console) = OciContainer::create(new).await.map_err(failed)?;
        let spans =
            vec![super::trace::own_span("runtime.create", &container.runtime.binary.display().to_string(), begun)];
        let pid = container.pid;
        let mut record = Record::new(pid, container.cgroup().map(Cgroup::path).unwrap_or_default());
        record.runtime = Some(container.runtime.clone());
        Ok(Made { machine: Machine::Command(Arc::new(container)), pid, streams, console, spans, record })
    }

    async fn make_by_shim(
        &self,
        request: &CreateRequest,
        documents: &Documents,
        binary: PathBuf,
        options: Option<(String, Vec<u8>)>,
        io: &Arc<ProcessIo>,
    ) -> Result<Made, TaskError> {
        let failed = |source| command("create", source);
        let (root, root_path) = self.root_of(request, documents).map_err(failed)?;
        // Its bundle's own directory, onto which it binds what we mounted.
        let document = rewritten(documents, &root, Path::new(ROOTFS)).map_err(failed)?;
        let begun = now_ns();
        let object = binary.display().to_string();
        note(&Record { shim: Some(OtherShim::expected(binary.clone())), ..Record::new(0, "") }, &request.bundle);
        let (relay, pid) = Relay::create(NewRelay {
            binary: binary.clone(),
            options,
            id: &request.id,
            bundle: &request.bundle,
            config: document.json,
            annotations: document.annotations,
            root,
            root_path,
            surroundings: &self.surroundings,
            io,
            patience: Patience::default(),
        })
        .await?;
        let mut record = Record::new(pid, &oci::cgroup_path_of(pid).unwrap_or_default());
        record.shim = Some(OtherShim::new(binary, relay.shim_pid));
        let spans = vec![super::trace::own_span("shim.create", &object, begun)];
        let machine = Machine::Relay(Arc::new(relay));
        Ok(Made { machine, pid, streams: Streams::default(), console: None, spans, record })
    }

    /// The root file system as a descriptor and as a path.
    fn root_of(&self, request: &CreateRequest, documents: &Documents) -> Result<(RootDir, PathBuf), CommandError> {
        match &documents.rootfs {
            Rootfs::Overlay(overlay, owners) => {
                let path = request.bundle.join(ROOTFS);
                Ok((self.mounts.mount(overlay, owners, &path)?, path))
            }
            Rootfs::Bundle => {
                let named = documents.spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
                let path = request.bundle.join(named);
                let root = RootDir::open_host(&path).map_err(|error| CommandError::Mount { source: error.into() })?;
                Ok((root, path))
            }
        }
    }

    fn documents(&self, request: &CreateRequest) -> Result<Documents, TaskError> {
        let config = match &request.document {
            Some(document) => document.clone(),
            None => read_bounded(&request.bundle.join("config.json"), CONFIG_BYTES_MAX)?,
        };
        let Parsed { document: mut spec, warnings } =
            berth_oci::document::spec(&config).map_err(|source| TaskError::Document { what: "config.json", source })?;
        warnings.iter().for_each(|warning| log::warn(warning));
        let rootfs = rootfs::from_wire(&request.rootfs, &mut spec)?;
        if let Some(score) = self.oom_score
            && let Some(process) = spec.process_mut()
            && process.oom_score_adj().is_none()
        {
            process.set_oom_score_adj(Some(score));
        }
        let program = spec.annotations().as_ref().and_then(|all| all.get(annotation::SECCOMP_PROGRAM));
        let seccomp_program = program.map(|path| read_bounded(Path::new(path), SECCOMP_BYTES_MAX)).transpose()?;
        Ok(Documents { config, spec, rootfs, seccomp_program })
    }
}

/// For whoever cleans up after a shim that died.
pub(super) fn note(record: &Record, bundle: &Path) {
    if let Err(error) = record.store(bundle) {
        log::warn(&format!("cannot store the task's record: {error}"));
    }
}

fn rewritten(documents: &Documents, root: &RootDir, path: &Path) -> Result<Document, CommandError> {
    oci::rewrite(&documents.config, &documents.spec, path, |user, annotations| {
        resolve_user(root, user, annotations).map_err(|source| CommandError::User { source })
    })
}

/// The shim itself, for whoever asked that its engine's group is not charged for it.
fn move_to(path: &str) -> Result<(), TaskError> {
    let failed = |source| TaskError::ShimCgroup { source };
    let group = Cgroup::open(&Layout::detect().map_err(failed)?, path).map_err(failed)?;
    group.attach(rustix::process::getpid()).map_err(failed)
}

fn is_by_systemd(request: &CreateRequest, spec: &Spec) -> bool {
    request.options.systemd_cgroup || has_annotation(spec, annotation::CGROUP_DRIVER, "systemd")
}

/// `id`: the task's, or of an added process.
pub(super) fn open_io(addresses: &Addresses, shim: &Shim, id: &str, owner: Owner) -> Result<Arc<ProcessIo>, TaskError> {
    let Addresses { stdin, stdout, stderr, terminal } = addresses;
    let mut request = IoRequest::parse(*terminal, stdin, stdout, stderr)?;
    request.subject = Subject { id: id.to_owned(), namespace: shim.surroundings.namespace.clone() };
    request.owner = owner;
    Ok(ProcessIo::open(request, &shim.outlets)?)
}

/// Rows and columns.
pub(super) fn size_of(size: Option<berth_oci::runtime::Box>) -> Option<(u16, u16)> {
    let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    size.map(|size| (cells(size.height()), cells(size.width())))
}

pub(super) fn terminal_size(spec: &Spec) -> Option<(u16, u16)> {
    size_of(spec.process().as_ref().and_then(|process| process.console_size()))
}

fn shares_pid_ns(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    !namespaces.is_some_and(|all| all.iter().any(|ns| ns.typ() == LinuxNamespaceType::Pid && ns.path().is_none()))
}

fn has_annotation(spec: &Spec, key: &str, value: &str) -> bool {
    spec.annotations().as_ref().and_then(|all| all.get(key)).is_some_and(|found| found == value)
}

pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TaskError> {
    let failed = |source| TaskError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn created_event(request: CreateRequest, pid: u32) -> events::TaskCreate {
    let Addresses { stdin, stdout, stderr, terminal } = request.addresses;
    let io = events::TaskIO { stdin, stdout, stderr, terminal, ..Default::default() };
    events::TaskCreate {
        container_id: request.id,
        bundle: request.bundle.display().to_string(),
        checkpoint: request.checkpoint.map(|images| images.display().to_string()).unwrap_or_default(),
        rootfs: Vec::new(),
        io: MessageField::some(io),
        pid,
        ..Default::default()
    }
}
