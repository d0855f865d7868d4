//! Create: walks the caller's part of the plan, clones init, attends to it until it is ready; undoes everything on failure.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::Spec;
use berth_rootfs::mounts::new_filesystem;
use berth_rootfs::options::MountOptions;
use berth_sys::clone::{Child, CloneArgs, clone_child, namespace_bits};
use berth_types::{Classify, ErrorClass, Span};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, WaitId, WaitIdOptions};
use rustix::thread::LinkNameSpaceType;

use crate::cgroup_driver::{CgroupDriver, Keeper, start_scope};
use crate::channel::{Channel, Message, Report, wait_readable};
use crate::container::{Container, Process, Waiting};
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::id_map::{IdMaps, mapping_namespace, write_proc};
use crate::init::{self, CgroupView, InitContext, Scratch};
use crate::labels::Label;
use crate::lend::Lent;
use crate::namespaces::Namespace;
use crate::net_devices::{Mover, NetDevice};
use crate::options::{CreateOptions, Fault, Rights};
use crate::plan::{Action, Plan, PlanInput, Stage, Step, plan_create};
use crate::process::capability_names;
use crate::rdt::{RdtGroup, RdtPlan};
use crate::seccomp::Filter;
use crate::sources::{self, SourceError};
use crate::state::{ContainerState, OCI_VERSION, Status};
use crate::trace::Times;

/// For a message from init: everything it does is local, but the machine may be very busy.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);
/// For init to be gone once it was killed, and its cgroup to be empty.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What has been made so far.
struct Creation<'a> {
    spec: &'a Spec,
    options: CreateOptions,
    plan: Plan,
    times: Times,
    state: ContainerState,
    layout: Layout,
    filter: Option<Filter>,
    namespaces: Vec<(Namespace, OwnedFd)>,
    cgroup: Option<Cgroup>,
    keeper: Option<Keeper>,
    mappings: Vec<(IdMaps, OwnedFd)>,
    rootfs: Option<OwnedFd>,
    sources: Vec<Option<OwnedFd>>,
    channel: Option<Channel>,
    child: Option<Child>,
    console: Option<OwnedFd>,
    warnings: Vec<String>,
    /// The user namespace that is joined: who clones init goes there first, and files are mapped by it.
    user_ns: Option<OwnedFd>,
    /// The network namespace that is joined, for interfaces to move there.
    net_ns: Option<OwnedFd>,
    mover: Option<Mover>,
    rdt: Option<RdtGroup>,
    /// A hook has begun, so those that end a container have to run as well (runtime-spec runtime, "Lifecycle" 3 to 13).
    has_begun_hooks: bool,
}

impl Container {
    /// Plan and apply up to the point where init waits to exec. On failure everything done is undone.
    /// The spans of all steps, including those inside init, are appended to `spans`.
    ///
    /// # Errors
    /// `InvalidArgument` for a spec that is not valid, `Unimplemented` for what this runtime cannot do, and what a step said.
    pub fn create(spec: &Spec, options: CreateOptions, spans: &mut Vec<Span>) -> Result<Self, RuntimeError> {
        check_preserved(options.tuning.preserve_fds)?;
        let mut plan = plan_create(&PlanInput {
            spec,
            id: options.id.as_str(),
            bundle: &options.bundle,
            rootfs: &options.rootfs,
            tuning: &options.tuning,
            has_seccomp_program: options.seccomp_program.is_some(),
        })?;
        let kernel = |source| RuntimeError::Kernel { what: "make a page for the times of init", source };
        let times = Times::new(plan.steps.len()).map_err(kernel)?;
        let layout = Layout::detect().map_err(|e| RuntimeError::Cgroup { what: "find", source: Box::new(e) })?;
        let state = ContainerState {
            oci_version: OCI_VERSION.to_owned(),
            id: options.id.to_string(),
            status: Status::Creating,
            pid: 0,
            bundle: options.bundle.clone(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        };
        let warnings = std::mem::take(&mut plan.warnings);
        let mut creation = Creation {
            spec,
            options,
            plan,
            times,
            state,
            layout,
            filter: None,
            namespaces: Vec::new(),
            cgroup: None,
            keeper: None,
            mappings: Vec::new(),
            rootfs: None,
            sources: Vec::new(),
            channel: None,
            child: None,
            console: None,
            warnings,
            user_ns: None,
            net_ns: None,
            mover: None,
            rdt: None,
            has_begun_hooks: false,
        };
        let result = creation.run();
        let done = creation.plan.range(Stage::Release).start;
        creation.times.spans(&creation.plan.steps, 0..done, spans);
        match result {
            Ok(()) => creation.finish(),
            Err(error) => {
                creation.undo();
                Err(error)
            }
        }
    }
}

impl Creation<'_> {
    fn run(&mut self) -> Result<(), RuntimeError> {
        for index in self.plan.range(Stage::Prepare) {
            self.walk(index)?;
        }
        let attended = self.attend();
        // What was tried on an init that had failed already fails as well; its own word is the reason.
        attended.map_err(|error| self.report_of_dead_init().unwrap_or(error))?;
        self.release_keeper()
    }

    fn report_of_dead_init(&self) -> Option<RuntimeError> {
        wait_readable(self.child.as_ref()?.pidfd.as_fd(), Duration::ZERO).ok()?;
        let channel = self.channel.as_ref()?;
        loop {
            match channel.receive(Some(Duration::ZERO)).ok()? {
                Message::Failed(report) => return Some(reported(report)),
                Message::End => return None,
                _ => {}
            }
        }
    }

    /// Does one of the caller's steps, timed, with its fault point.
    fn walk(&mut self, index: usize) -> Result<(), RuntimeError> {
        let Some(step) = self.plan.steps.get(index).cloned() else { return Ok(()) };
        self.times.begin(index);
        if self.options.tuning.fault == Some(Fault(index)) {
            return Err(failed(&step, "injected fault", Errno::IO));
        }
        self.apply(&step)?;
        self.times.end(index);
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), RuntimeError> {
        match &step.action {
            Action::CheckLabel(label) => label.check_host(),
            Action::CheckMountLabel => Label::SeLinux(String::new())
                .check_host()
                .map_err(|_| RuntimeError::HostLacks { wanted_by: "linux.mountLabel", what: "SELinux" }),
            Action::CreateRdtGroup(plan) => self.create_rdt_group(plan),
            Action::LoadProgram => self.load_program(),
            Action::OpenNamespace(kind, path) => self.open_namespace(step, *kind, path),
            Action::CreateCgroup(path) => self.create_cgroup(path),
            // A scope was started with them.
            Action::LimitResources(_) if self.keeper.is_some() => Ok(()),
            Action::LimitResources(_) if self.cgroup.as_ref().is_some_and(Cgroup::is_absent) => Ok(()),
            Action::LimitResources(resources) => {
                let settings = berth_cgroup::plan(&self.layout, resources)?;
                let cgroup = |source| RuntimeError::Cgroup { what: "limit", source: Box::new(source) };
                self.cgroup.as_ref().map_or(Ok(()), |group| group.apply(&settings)).map_err(cgroup)
            }
            Action::MapMounts => self.map_mounts(step),
            Action::MountOverlay(overlay) => {
                self.rootfs = Some(match self.mapping(None) {
                    Some(user_ns) => overlay.mount_detached_idmapped(user_ns.as_fd())?,
                    None => overlay.mount_detached()?,
                });
                Ok(())
            }
            Action::CloneRootfs { path, is_slave } => self.clone_rootfs(step, path, *is_slave),
            Action::CloneSource(slot) => self.clone_source(step, *slot),
            Action::CloneInit => self.clone_init(step),
            other => self.apply_attending(step, other),
        }
    }

    /// Steps while init is there.
    fn apply_attending(&mut self, step: &Step, action: &Action) -> Result<(), RuntimeError> {
        let pid = self.state.pid;
        match action {
            Action::MapIds if self.options.tuning.rights == Rights::Ordinary => {
                self.plan.id_maps.write_as_user(pid).map_err(|(errno, what)| failed(step, &what, errno))
            }
            Action::MapIds => self.plan.id_maps.write(pid).map_err(|(errno, file)| failed(step, file, errno)),
            Action::CompareMaps => self.plan.id_maps.compare(pid).map_err(|(errno, what)| failed(step, what, errno)),
            Action::WriteClocks(offsets) => {
                write_proc(pid, "timens_offsets", offsets.as_bytes()).map_err(|errno| failed(step, "", errno))
            }
            Action::JoinRdtGroup => {
                let joined = self.rdt.as_ref().map_or(Ok(()), |group| group.add(pid));
                joined.map_err(|error| failed(step, "", errno_of(&error)))
            }
            Action::TakeNetDevice(device) => self.take_net_device(step, device),
            Action::RaiseLimit(limit) => self.raise_limit(*limit),
            Action::SetOomScore(score) => self.set_oom_score(step, *score),
            Action::OutsideHooks(stage) => {
                self.has_begun_hooks = true;
                hooks::run(*stage, self.spec.hooks().as_ref(), &self.state.to_json())
            }
            _ => Err(failed(step, "this step is not for the caller", Errno::INVAL)),
        }
    }

    fn load_program(&mut self) -> Result<(), RuntimeError> {
        let capabilities = capability_names(self.plan.process.capabilities.as_ref());
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let (ready, cache) = (self.options.seccomp_program.as_deref(), self.options.tuning.seccomp_cache.as_deref());
        self.filter = Filter::new(ready, profile, &capabilities, cache)?;
        Ok(())
    }

    fn open_namespace(&mut self, step: &Step, kind: Namespace, path: &Path) -> Result<(), RuntimeError> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(step, "cannot open it", errno))?;
        let copy = || fd.try_clone().map_err(|error| failed(step, "cannot copy it", errno_of(&error)));
        match kind {
            Namespace::User => self.user_ns = Some(fd),
            Namespace::Network => {
                self.net_ns = Some(copy()?);
                self.namespaces.push((kind, fd));
            }
            Namespace::Mount => {
                refuse_own_mount_ns(step, &fd)?;
                self.namespaces.push((kind, fd));
            }
            _ => self.namespaces.push((kind, fd)),
        }
        Ok(())
    }

    /// A group with processes in it is somebody else's: it would be limited, frozen and killed with the container.
    fn create_cgroup(&mut self, path: &str) -> Result<(), RuntimeError> {
        let cgroup = |source| RuntimeError::Cgroup { what: "create", source: Box::new(source) };
        if let Ok(existing) = Cgroup::open(&self.layout, path) {
            // In runc's words. In a frozen group init would stop for good.
            let problem = if !existing.pids().map_err(cgroup)?.is_empty() {
                Some("cannot be created: container's cgroup is not empty")
            } else if existing.frozen().unwrap_or(false) {
                Some("cannot be created: container's cgroup unexpectedly frozen")
            } else {
                None
            };
            if let Some(problem) = problem {
                let (id, class) = (self.state.id.clone(), ErrorClass::FailedPrecondition);
                return Err(RuntimeError::Container { id, problem, class });
            }
        }
        self.cgroup = Some(match &self.options.tuning.cgroup_driver {
            CgroupDriver::Cgroupfs => match Cgroup::create(&self.layout, path) {
                Err(error) if self.options.tuning.may_lack_cgroup && error.class() == ErrorClass::PermissionDenied => {
                    self.warn_of_lost_limits();
                    Cgroup::absent(path)
                }
                made => made.map_err(cgroup)?,
            },
            CgroupDriver::Systemd(instance) => {
                let (group, keeper) =
                    start_scope(&self.layout, instance, path, &self.state.id, &self.plan.resources())?;
                self.keeper = Some(keeper);
                group
            }
        });
        Ok(())
    }

    fn warn_of_lost_limits(&mut self) {
        let resources = self.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
        let is_limited = resources.is_some_and(|resources| {
            let (cpu, memory, pids) =
                (resources.cpu().is_some(), resources.memory().is_some(), resources.pids().is_some());
            cpu || memory || pids || resources.block_io().is_some() || resources.unified().is_some()
        });
        if is_limited {
            self.warnings.push("no limit holds: this user may not make a cgroup".to_owned());
        }
    }

    fn map_mounts(&mut self, step: &Step) -> Result<(), RuntimeError> {
        let is_new = self.plan.namespaces.is_new(Namespace::User);
        let own = is_new.then(|| self.plan.id_maps.clone());
        let asked = self.plan.sources.iter().filter_map(|mount| mount.id_maps.clone());
        for maps in own.into_iter().chain(asked) {
            if !self.mappings.iter().any(|(made, _)| *made == maps) {
                let user_ns = mapping_namespace(&maps)
                    .map_err(|errno| failed(step, "cannot make a user namespace that carries the mapping", errno))?;
                self.mappings.push((maps, user_ns));
            }
        }
        Ok(())
    }

    /// A user namespace that carries these mappings, or (`None`) the container's own.
    fn mapping(&self, maps: Option<&IdMaps>) -> Option<&OwnedFd> {
        if let (None, Some(user_ns)) = (maps, &self.user_ns) {
            return Some(user_ns);
        }
        let maps = maps.unwrap_or(&self.plan.id_maps);
        self.mappings.iter().find(|(made, _)| made == maps).map(|(_, fd)| fd)
    }

    fn create_rdt_group(&mut self, plan: &RdtPlan) -> Result<(), RuntimeError> {
        let mount = crate::rdt::mount_point()?;
        let path = mount.display().to_string();
        let error = |source| RuntimeError::File { what: "make a resctrl group below", path, source };
        self.rdt = Some(plan.create(&mount, &self.state.id).map_err(error)?);
        Ok(())
    }

    fn take_net_device(&mut self, step: &Step, device: &NetDevice) -> Result<(), RuntimeError> {
        let failed = |errno: Errno| {
            let detail = match errno {
                Errno::NODEV => "the host has no interface of this name",
                Errno::EXIST => "the container has an interface of this name already",
                _ => "",
            };
            failed(step, detail, errno)
        };
        if self.mover.is_none() {
            let net_ns = match self.net_ns.take() {
                Some(joined) => joined,
                None => {
                    let path = format!("/proc/{}/ns/net", self.state.pid);
                    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?
                }
            };
            self.mover = Some(Mover::new(net_ns).map_err(failed)?);
        }
        self.mover.as_mut().map_or(Ok(()), |mover| mover.take(device)).map_err(failed)
    }

    fn clone_rootfs(&mut self, step: &Step, path: &Path, is_slave: bool) -> Result<(), RuntimeError> {
        self.rootfs = Some(sources::clone_rootfs(path, is_slave).map_err(|error| source_error(step, error))?);
        Ok(())
    }

    fn clone_source(&mut self, step: &Step, slot: usize) -> Result<(), RuntimeError> {
        let Some(plan) = self.plan.sources.get(slot) else { return Ok(()) };
        let user_ns = self.mapping(plan.id_maps.as_ref());
        let mount = sources::clone_bind(plan, user_ns).map_err(|error| source_error(step, error))?;
        sources::keep(&mut self.sources, slot, mount);
        Ok(())
    }

    /// Everything init needs goes into its context before the clone; afterwards this process drops its copy.
    fn clone_init(&mut self, step: &Step) -> Result<(), RuntimeError> {
        let kernel = |errno| failed(step, "", errno);
        let group = self.cgroup.as_ref();
        let cgroup = |source| RuntimeError::Cgroup { what: "enter", source: Box::new(source) };
        let cgroup_fds = group.map_or(Ok(Vec::new()), Cgroup::attach_fds).map_err(cgroup)?;
        let view = group.map(|group| CgroupView { layout: self.layout.clone(), paths: group.paths() });
        let (ours, theirs) = Channel::pair().map_err(kernel)?;
        let pid_ns = self.namespaces.iter().position(|(kind, _)| *kind == Namespace::Pid);
        let pid_ns = pid_ns.map(|index| self.namespaces.swap_remove(index).1);
        let stdio = std::mem::replace(
            &mut self.options.stdio,
            crate::Stdio::Terminal { rows: 0, columns: 0, keeps_newlines: false },
        );
        let has_user_ns = self.plan.namespaces.is_private(Namespace::User);
        let lent = if has_user_ns { Lent::enter(&mut self.namespaces).map_err(kernel)? } else { Lent::default() };
        // Only who has a right to the network namespace may mount a view of it: the caller, while it stands there.
        let sysfs = (has_user_ns && self.plan.namespaces.is_joined(Namespace::Network))
            .then(|| new_filesystem("sysfs", None, &MountOptions::default()).ok())
            .flatten();
        let context = InitContext {
            plan: &self.plan,
            times: &self.times,
            channel: theirs,
            listener: self.options.tuning.start_listener.take(),
            fault: self.options.tuning.fault,
            stdio,
            filter: self.filter.clone(),
            hooks: self.spec.hooks().as_ref(),
            state: self.state.clone(),
            preserve_fds: self.options.tuning.preserve_fds,
            namespaces: std::mem::take(&mut self.namespaces),
            join: None,
            cgroup_fds,
            cgroup_view: view,
            rootfs: self.rootfs.take(),
            sources: std::mem::take(&mut self.sources),
            scratch: Scratch::with_sysfs(sysfs),
            rights: self.options.tuning.rights,
        };
        let args = CloneArgs {
            namespaces: namespace_bits(self.plan.namespaces.clone_flags()),
            cgroup: group.and_then(Cgroup::cgroup_dir_fd),
            ..CloneArgs::default()
        };
        let child = clone_into_pid_ns(&args, pid_ns.as_ref(), self.user_ns.as_ref(), context);
        let back = lent.leave();
        let child = child.map_err(kernel)?;
        self.state.pid = child.pid;
        self.child = Some(child);
        back.map_err(|errno| failed(step, "cannot go back to the caller's own namespaces", errno))?;
        self.channel = Some(ours);
        Ok(())
    }

    /// Serves init until it is ready.
    fn attend(&mut self) -> Result<(), RuntimeError> {
        self.attend_to(|action| {
            use Action::{MapIds, OutsideHooks, TakeNetDevice, WriteClocks};
            !matches!(action, MapIds | WriteClocks(_) | TakeNetDevice(_) | OutsideHooks(_))
        })?;
        loop {
            match self.receive()? {
                Message::AwaitsMappings => {
                    self.attend_to(|action| matches!(action, Action::MapIds))?;
                    self.send_go()?;
                }
                Message::AwaitsDevices => {
                    self.attend_to(|action| matches!(action, Action::TakeNetDevice(_)))?;
                    self.send_go()?;
                }
                Message::AwaitsClocks => {
                    self.attend_to(|action| matches!(action, Action::WriteClocks(_)))?;
                    self.send_go()?;
                }
                Message::AwaitsHooks => {
                    self.attend_to(|action| matches!(action, Action::OutsideHooks(_)))?;
                    self.send_go()?;
                }
                Message::Console(master) => self.console = Some(master),
                Message::Warning(text) => self.warnings.push(text),
                Message::Failed(report) => return Err(reported(report)),
                Message::Ready => return Ok(()),
                Message::Go | Message::End | Message::Listener(_) | Message::Child(_) => {
                    return Err(RuntimeError::InitDied { step: self.times.current(&self.plan.steps) });
                }
            }
        }
    }

    fn attend_to(&mut self, wanted: impl Fn(&Action) -> bool) -> Result<(), RuntimeError> {
        for index in self.plan.range(Stage::Attend) {
            if self.plan.steps.get(index).is_some_and(|step| wanted(&step.action)) {
                self.walk(index)?;
            }
        }
        Ok(())
    }

    fn receive(&self) -> Result<Message, RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "hear from the container's init", source };
        let has_hooks = self.spec.hooks().is_some();
        let timeout = if has_hooks { INIT_TIMEOUT * 10 } else { INIT_TIMEOUT };
        self.channel.as_ref().map_or(Ok(Message::End), |channel| channel.receive(Some(timeout))).map_err(kernel)
    }

    fn send_go(&self) -> Result<(), RuntimeError> {
        // If init is gone, the next message says so.
        match self.channel.as_ref().map_or(Ok(()), |channel| channel.send(&Message::Go)) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(source) => Err(RuntimeError::Kernel { what: "speak to the container's init", source }),
        }
    }

    fn raise_limit(&self, index: usize) -> Result<(), RuntimeError> {
        let Some(limit) = self.plan.process.limits.get(index) else { return Ok(()) };
        let pid = i32::try_from(self.state.pid).ok().and_then(rustix::process::Pid::from_raw);
        let now = rustix::process::getrlimit(limit.resource);
        if limit.hard <= now.maximum.unwrap_or(u64::MAX) {
            return Ok(());
        }
        let hard = (limit.hard != u64::MAX).then_some(limit.hard);
        let wanted = rustix::process::Rlimit { current: now.current, maximum: hard };
        // Not being allowed to is init's to report: it takes what it can get.
        match rustix::process::prlimit(pid, limit.resource, wanted) {
            Ok(_) | Err(Errno::PERM) => Ok(()),
            Err(source) => Err(RuntimeError::Kernel { what: "raise a limit of the container's init", source }),
        }
    }

    fn set_oom_score(&mut self, step: &Step, score: i32) -> Result<(), RuntimeError> {
        match write_oom_score(self.state.pid, score) {
            Ok(warning) => {
                self.warnings.extend(warning);
                Ok(())
            }
            Err(errno) => Err(failed(step, "", errno)),
        }
    }

    /// Init lives in the scope now, so the process that held its place can go.
    fn release_keeper(&mut self) -> Result<(), RuntimeError> {
        match (self.keeper.take(), &self.cgroup) {
            (Some(keeper), Some(group)) => keeper.release(group),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Container, RuntimeError> {
        let gone = |what| RuntimeError::InitDied { step: what };
        let child = self.child.take().ok_or_else(|| gone("clone-init".to_owned()))?;
        let channel = self.channel.take().ok_or_else(|| gone("clone-init".to_owned()))?;
        let cgroup = self.cgroup.take().ok_or_else(|| gone("create-cgroup".to_owned()))?;
        let init = Process { pid: child.pid, pidfd: child.pidfd, console: self.console.take() };
        self.state.status = Status::Created;
        Ok(Container {
            init,
            warnings: std::mem::take(&mut self.warnings),
            state: self.state,
            hooks: self.spec.hooks().clone(),
            namespaces: self.plan.namespaces.clone(),
            filter: self.filter,
            cgroup,
            waiting: Some(Waiting { channel: Some(channel), steps: self.plan.steps, times: Some(self.times) }),
            state_dir: None,
            inherited: self.plan.inherited,
            rdt: self.rdt,
        })
    }

    /// Everything made so far, taken back. The first error is the one that counts, so these are not reported.
    fn undo(&mut self) {
        if let Some(mover) = self.mover.take() {
            mover.give_back();
        }
        self.channel = None;
        if let Some(child) = self.child.take() {
            kill_and_reap(&child.pidfd);
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.end();
        }
        if let Some(cgroup) = self.cgroup.take() {
            let _killed = cgroup.kill_all(berth_types::Signal::KILL, KILL_TIMEOUT);
            let _removed = cgroup.delete(KILL_TIMEOUT);
        }
        if let Some(group) = self.rdt.take() {
            let _removed = group.remove();
        }
        let inside = self.times.has_begun(&self.plan.steps, crate::plan::INSIDE_HOOKS);
        if self.has_begun_hooks || inside {
            let mut state = self.state.clone();
            (state.status, state.pid) = (Status::Stopped, 0);
            let _warnings = hooks::run_all(HookStage::Poststop, self.spec.hooks().as_ref(), &state.to_json());
        }
    }
}

/// A number that is not open would be taken by a descriptor of ours, and handed to the container as one of its own.
pub(crate) fn check_preserved(count: u32) -> Result<(), RuntimeError> {
    match (3..count.saturating_add(3)).find(|number| !berth_sys::process::is_inherited(*number)) {
        Some(number) => {
            let problem = format!("descriptor {number} shall be preserved and is not open");
            Err(RuntimeError::Spec { field: "preserved descriptors", problem })
        }
        None => Ok(()),
    }
}

/// The mounts of a container that joins the caller's own mount namespace would be the host's, and its root everybody's.
fn refuse_own_mount_ns(step: &Step, fd: &OwnedFd) -> Result<(), RuntimeError> {
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let own = rustix::fs::stat("/proc/self/ns/mnt").map(identity);
    let theirs = rustix::fs::fstat(fd).map(identity);
    match (own, theirs) {
        (Ok(own), Ok(theirs)) if own != theirs => Ok(()),
        (Err(errno), _) | (_, Err(errno)) => Err(failed(step, "cannot look at it", errno)),
        _ => Err(failed(step, "it is the runtime's own mount namespace", Errno::INVAL)),
    }
}

/// The number of a process in the caller's PID namespace (who cloned it may be in another one).
fn pid_of(pidfd: &OwnedFd) -> Result<u32, Errno> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).map_err(|error| errno_of(&error))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or(Errno::SRCH)
}

pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Clones with the caller's children going to another PID namespace meanwhile, where one is joined; the child's memory is not
/// dumpable from birth, so nobody in a namespace it joins can look into it (CVE-2016-9962).
pub(crate) fn clone_into_pid_ns(
    args: &CloneArgs<'_>,
    pid_ns: Option<&OwnedFd>,
    user_ns: Option<&OwnedFd>,
    context: InitContext<'_>,
) -> Result<Child, Errno> {
    let own = match pid_ns {
        Some(pid_ns) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let own = rustix::fs::open("/proc/self/ns/pid_for_children", flags, Mode::empty())?;
            rustix::thread::move_into_link_name_space(pid_ns.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
            Some(own)
        }
        None => None,
    };
    let before = rustix::process::dumpable_behavior();
    // The files that map an ordinary user's child are his only while it is dumpable; it then changes that itself.
    let wanted = if context.rights == Rights::Ordinary && user_ns.is_none() {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    let result = rustix::process::set_dumpable_behavior(wanted).and_then(|()| match user_ns {
        Some(user_ns) => clone_in_user_ns(args, user_ns, None, context),
        None => clone_child(args, move || init::run(context)),
    });
    if let Ok(before) = before {
        let _restored = rustix::process::set_dumpable_behavior(before);
    }
    if let Some(own) = own {
        rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    }
    result
}

/// The new namespaces of a container shall belong to the user namespace it joins, and nobody comes back from there: a process in
/// between joins it, clones init as its sibling (our child) and ends.
pub(crate) fn clone_in_user_ns(
    args: &CloneArgs<'_>,
    user_ns: &OwnedFd,
    pid_ns: Option<&OwnedFd>,
    context: InitContext<'_>,
) -> Result<Child, Errno> {
    let (ours, theirs) = Channel::pair()?;
    let between = CloneArgs { cgroup: args.cgroup, ..CloneArgs::default() };
    let inner = CloneArgs { namespaces: args.namespaces, sibling: true, ..CloneArgs::default() };
    let between = clone_child(&between, move || {
        let cloned = rustix::thread::move_into_link_name_space(user_ns.as_fd(), Some(LinkNameSpaceType::User))
            .and_then(|()| init::become_root(context.rights))
            .and_then(|()| match pid_ns {
                Some(pid_ns) => {
                    rustix::thread::move_into_link_name_space(pid_ns.as_fd(), Some(LinkNameSpaceType::ProcessID))
                }
                None => Ok(()),
            })
            .and_then(|()| clone_child(&inner, move || init::run(context)));
        let told = match cloned {
            Ok(child) => theirs.send(&Message::Child(child.pidfd)),
            Err(errno) => {
                let (step, object, detail) = ("join".to_owned(), "user".to_owned(), String::new());
                theirs.send(&Message::Failed(Report { step, object, detail, errno }))
            }
        };
        u8::from(told.is_err())
    })?;
    let answer = ours.receive(Some(INIT_TIMEOUT));
    let _gone = wait_readable(between.pidfd.as_fd(), KILL_TIMEOUT);
    kill_and_reap(&between.pidfd);
    match answer? {
        Message::Child(pidfd) => Ok(Child { pid: pid_of(&pidfd)?, pidfd }),
        Message::Failed(report) => Err(report.errno),
        _ => Err(Errno::CONNRESET),
    }
}

/// `Some` is a warning: the host may not go as low as asked, the container runs all the same.
pub(crate) fn write_oom_score(pid: u32, score: i32) -> Result<Option<String>, Errno> {
    match write_proc(pid, "oom_score_adj", score.to_string().as_bytes()) {
        Ok(()) => Ok(None),
        Err(Errno::PERM | Errno::ACCESS) => {
            Ok(Some(format!("oom_score_adj was not set to {score}: lowering it needs CAP_SYS_RESOURCE")))
        }
        Err(errno) => Err(errno),
    }
}

fn source_error(step: &Step, error: SourceError) -> RuntimeError {
    match error {
        SourceError::Clone(error) => error.into(),
        SourceError::Change(detail, errno) => failed(step, detail, errno),
    }
}

pub(crate) fn failed(step: &Step, detail: &str, errno: Errno) -> RuntimeError {
    RuntimeError::Step {
        step: step.action.name().to_owned(),
        object: step.object.clone(),
        detail: detail.to_owned(),
        source: errno,
    }
}

pub(crate) fn reported(report: Report) -> RuntimeError {
    RuntimeError::Step { step: report.step, object: report.object, detail: report.detail, source: report.errno }
}

/// Ends a child of ours and takes its status; waits for its end at most [`KILL_TIMEOUT`].
pub(crate) fn kill_and_reap(pidfd: &OwnedFd) {
    let _gone_already = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let _late = wait_readable(pidfd.as_fd(), KILL_TIMEOUT);
    reap(pidfd);
}

/// Takes the status of an ended child; somebody else's child, or one already taken, is fine.
pub(crate) fn reap(pidfd: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _taken = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options);
}
