//! Create: documents are read, standard I/O is opened, and the runtime makes the container up to the point where init waits.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_oci::annotation;
use berth_oci::document::Parsed;
use berth_oci::runtime::{LinuxNamespaceType, Spec};
use berth_proto::events;
use berth_proto::protobuf::MessageField;
use berth_proto::task::Mount;
use berth_runtime::{CgroupDriver, Container, CreateOptions, Rootfs, SystemdInstance, Tuning};
use berth_types::Span;

use super::trace::{Trace, now_ns};
use super::{Options, Shim, Task, rootfs, runtime};
use crate::error::TaskError;
use crate::io::{IoRequest, ProcessIo, Streams};
use crate::log;
use crate::process::{Addresses, Process, Status};
use crate::reaper;
use crate::record::Record;

const CONFIG_BYTES_MAX: u64 = 16 << 20;
const SECCOMP_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) addresses: Addresses,
    pub(crate) options: Options,
}

/// What the documents say.
struct Documents {
    spec: Spec,
    rootfs: Rootfs,
    seccomp_program: Option<Vec<u8>>,
}

impl Shim {
    /// Returns init's pid on the host.
    pub(crate) fn create(self: &Arc<Self>, request: CreateRequest) -> Result<u32, TaskError> {
        let begun = now_ns();
        let mut slot = self.lock();
        if slot.is_some() {
            return Err(TaskError::TaskExists { id: request.id });
        }
        if request.id != self.id {
            return Err(TaskError::Argument { what: "task id (this shim was started for another)", value: request.id });
        }
        let io = open_io(&request.addresses, self)?;
        let made = self.make(&request, &io);
        let (mut task, mut streams) = match made {
            Ok(made) => made,
            Err(error) => {
                tokio::spawn(async move { io.settle().await });
                return Err(error);
            }
        };
        let pid = task.init.pid();
        let connected = task
            .init
            .io
            .connect(std::mem::take(&mut streams), task.container.init.console.take())
            .map_err(TaskError::from)
            .and_then(|()| self.follow_init(&task));
        if let Err(error) = connected {
            if let Err(undo) = task.container.delete() {
                log::error(&format!("roll-back of create: {}", berth_types::report(&undo)));
            }
            return Err(error);
        }
        task.oom_watch = self.watch_memory(&task.container);
        if let Err(error) = Record::new(pid, task.container.cgroup().path()).store(&request.bundle) {
            log::warn(&format!("cannot store the task's record: {error}"));
        }
        task.trace.finish("task.create", &request.id, begun, &request.bundle);
        *slot = Some(task);
        drop(slot);
        self.events.created(&created(request, pid));
        Ok(pid)
    }

    fn make(&self, request: &CreateRequest, io: &Arc<ProcessIo>) -> Result<(Task, Streams), TaskError> {
        let Documents { spec, rootfs, seccomp_program } = self.documents(request)?;
        let (stdio, streams) = io.streams(terminal_size(&spec))?;
        let by_systemd = request.options.systemd_cgroup || has_annotation(&spec, annotation::CGROUP_DRIVER, "systemd");
        let cgroup_driver =
            if by_systemd { CgroupDriver::Systemd(SystemdInstance::System) } else { CgroupDriver::default() };
        let tuning = Tuning { cgroup_driver, ..Tuning::default() };
        let options = CreateOptions {
            id: request.id.parse().map_err(|source| TaskError::Id { id: request.id.clone(), source })?,
            bundle: request.bundle.clone(),
            rootfs,
            stdio,
            seccomp_program,
            tuning,
        };
        let mut spans: Vec<Span> = Vec::new();
        let container = Container::create(&spec, options, &mut spans).map_err(|source| runtime("create", source))?;
        for warning in &container.warnings {
            log::warn(warning);
        }
        let init = Process::new(String::new(), request.addresses.clone(), Arc::clone(io), None);
        let pidfd = container.init.pidfd.try_clone();
        let pid = container.init.pid;
        init.set_live(pid, Arc::new(pidfd.map_err(|source| TaskError::Watch { pid, source })?), Status::Created);
        let task = Task {
            bundle: request.bundle.clone(),
            container,
            init,
            execs: HashMap::new(),
            is_paused: false,
            shares_pid_ns: shares_pid_ns(&spec),
            oom_score: spec.process().as_ref().and_then(|process| process.oom_score_adj()),
            oom_watch: None,
            oom_kills_told: 0,
            trace: Trace { spans, is_written: has_annotation(&spec, annotation::TRACE, "true") },
        };
        Ok((task, streams))
    }

    fn documents(&self, request: &CreateRequest) -> Result<Documents, TaskError> {
        let config = read_bounded(&request.bundle.join("config.json"), CONFIG_BYTES_MAX)?;
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
        Ok(Documents { spec, rootfs, seccomp_program })
    }

    fn follow_init(self: &Arc<Self>, task: &Task) -> Result<(), TaskError> {
        let pid = task.init.pid();
        let exited = reaper::follow(&task.container.init.pidfd).map_err(|source| TaskError::Watch { pid, source })?;
        tokio::spawn(Arc::clone(self).init_ends(Arc::clone(&task.init), exited));
        Ok(())
    }
}

pub(super) fn open_io(addresses: &Addresses, shim: &Shim) -> Result<Arc<ProcessIo>, TaskError> {
    let Addresses { stdin, stdout, stderr, terminal } = addresses;
    let request = IoRequest::parse(*terminal, stdin, stdout, stderr)?;
    Ok(ProcessIo::open(request, &shim.outlets)?)
}

/// Rows and columns.
pub(super) fn size_of(size: Option<berth_oci::runtime::Box>) -> Option<(u16, u16)> {
    let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    size.map(|size| (cells(size.height()), cells(size.width())))
}

fn terminal_size(spec: &Spec) -> Option<(u16, u16)> {
    size_of(spec.process().as_ref().and_then(|process| process.console_size()))
}

fn shares_pid_ns(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    !namespaces.is_some_and(|all| all.iter().any(|ns| ns.typ() == LinuxNamespaceType::Pid && ns.path().is_none()))
}

fn has_annotation(spec: &Spec, key: &str, value: &str) -> bool {
    spec.annotations().as_ref().and_then(|all| all.get(key)).is_some_and(|found| found == value)
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TaskError> {
    let failed = |source| TaskError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn created(request: CreateRequest, pid: u32) -> events::TaskCreate {
    let Addresses { stdin, stdout, stderr, terminal } = request.addresses;
    let io = events::TaskIO { stdin, stdout, stderr, terminal, ..Default::default() };
    events::TaskCreate {
        container_id: request.id,
        bundle: request.bundle.display().to_string(),
        rootfs: Vec::new(),
        io: MessageField::some(io),
        pid,
        ..Default::default()
    }
}
