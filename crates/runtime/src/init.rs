//! The container's init, and a process added later, between clone3 and exec: walks its part of the plan.
//!
//! Runs in a copy of the caller's address space with one thread. It never unwinds or returns into the caller's code; whatever goes
//! wrong is sent over the channel as step, object and errno. Until exec it cannot be traced or looked into (not dumpable).

mod cgroup_mount;
mod enter;
mod identity;
mod mounts;
mod notify;

use std::os::fd::{AsFd, OwnedFd};

use berth_cgroup::Layout;
use berth_oci::runtime::Hooks;
use berth_rootfs::RootDir;
use berth_rootfs::mask::Masks;
use berth_rootfs::mounts::MountError;
use berth_types::report;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::channel::{Channel, Message, Report};
use crate::hooks;
use crate::meanwhile::Meanwhile;
use crate::namespaces::Namespace;
use crate::options::{Fault, Rights, Stdio};
use crate::plan::{Action, Plan, Stage, Step};
use crate::seccomp::Filter;
use crate::sources::{self, SourceError};
use crate::state::ContainerState;
use crate::trace::Times;
use crate::user::Identity;

/// Why a step failed: what was tried, and the kernel's word.
#[derive(Debug)]
pub(crate) struct Failure {
    detail: String,
    errno: Errno,
}

impl Failure {
    fn new(detail: impl Into<String>, errno: Errno) -> Self {
        Self { detail: detail.into(), errno }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { detail: String::new(), errno }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Clone(error) => error.into(),
            SourceError::Change(detail, errno) => Self::new(detail, errno),
            SourceError::Locked { .. } => Self::new("an option takes off what is locked at its source", Errno::PERM),
        }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self { detail: error.to_string(), errno: error.errno() }
    }
}

impl From<berth_rootfs::RootError> for Failure {
    fn from(error: berth_rootfs::RootError) -> Self {
        Self { detail: error.to_string(), errno: error.source }
    }
}

/// The cgroup hierarchies as mounts inside the container need them.
#[derive(Debug)]
pub(crate) struct CgroupView {
    pub(crate) layout: Layout,
    /// The container's directories by controller.
    pub(crate) paths: std::collections::BTreeMap<String, std::path::PathBuf>,
}

/// All that steps take, use up and leave for later ones.
#[derive(Debug)]
pub(crate) struct InitContext<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) times: &'a Times,
    pub(crate) channel: Channel,
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) fault: Option<Fault>,
    pub(crate) stdio: Stdio,
    pub(crate) filter: Option<Filter>,
    pub(crate) hooks: Option<&'a Hooks>,
    pub(crate) state: ContainerState,
    pub(crate) preserve_fds: u32,
    /// Namespaces opened by the caller.
    pub(crate) namespaces: Vec<(Namespace, OwnedFd)>,
    /// Exec: init's pidfd and what to join through it.
    pub(crate) join: Option<(OwnedFd, UnshareFlags)>,
    pub(crate) cgroup_fds: Vec<OwnedFd>,
    pub(crate) cgroup_view: Option<CgroupView>,
    pub(crate) rootfs: Option<OwnedFd>,
    /// Cloned bind sources by slot.
    pub(crate) sources: Vec<Option<OwnedFd>>,
    pub(crate) scratch: Scratch,
    pub(crate) rights: Rights,
}

/// What earlier steps leave for later ones.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    root: Option<RootDir>,
    host_root: Option<OwnedFd>,
    /// The host's mount namespace, while its mounts are made in another.
    host_mounts: Option<OwnedFd>,
    proc_mount: Option<OwnedFd>,
    devpts: Option<OwnedFd>,
    console: Option<OwnedFd>,
    /// A view of the container's network that the caller mounted, for want of the right to.
    sysfs: Option<OwnedFd>,
    masks: Masks,
    identity: Option<Identity>,
}

impl Scratch {
    pub(crate) fn with_sysfs(sysfs: Option<OwnedFd>) -> Self {
        Self { sysfs, ..Self::default() }
    }
}

/// The child's whole life before exec; what it returns is its exit code.
pub(crate) fn run(mut context: InitContext<'_>) -> u8 {
    let signals = berth_sys::process::reset_signals();
    berth_sys::process::set_umask(0);
    let plan = context.plan;
    if let Err(errno) = signals {
        return context.fail("start-up", "signals", &Failure::from(errno));
    }
    if let Err(errno) = context.close_foreign() {
        return context.fail("start-up", "descriptors", &Failure::from(errno));
    }
    for index in plan.range(Stage::Init) {
        if let Some(code) = context.walk(index, plan) {
            return code;
        }
    }
    // The kernel keeps signals that have no handler from the first process of a PID namespace; one that waits shall go when told to.
    if berth_sys::process::exit_on_signals().is_err() {
        return 1;
    }
    if context.channel.send(&Message::Ready).is_err() || context.await_start().is_err() {
        return 1;
    }
    for index in plan.range(Stage::Release) {
        if let Some(code) = context.walk(index, plan) {
            return code;
        }
    }
    1
}

impl InitContext<'_> {
    /// What the caller had open besides what this process was given: its logs, its clients' sockets, the pipes of others. Until exec they
    /// would be within reach of who may trace us, and a waiting init would hold them open for as long as it waits.
    fn close_foreign(&self) -> Result<(), Errno> {
        let mut kept = vec![self.channel.as_fd()];
        kept.extend(self.listener.iter().map(AsFd::as_fd));
        kept.extend(self.streams().into_iter().flatten());
        kept.extend(self.namespaces.iter().map(|(_, fd)| fd.as_fd()));
        kept.extend(self.join.iter().map(|(fd, _)| fd.as_fd()));
        kept.extend(self.cgroup_fds.iter().map(AsFd::as_fd));
        kept.extend(self.rootfs.iter().map(AsFd::as_fd));
        kept.extend(self.sources.iter().flatten().map(AsFd::as_fd));
        kept.extend(self.scratch.sysfs.iter().map(AsFd::as_fd));
        berth_sys::process::close_all_but(self.preserve_fds.saturating_add(3), &kept)
    }

    /// Does one step; `Some` is the exit code after a failure.
    fn walk(&mut self, index: usize, plan: &Plan) -> Option<u8> {
        let step = plan.steps.get(index)?;
        self.times.begin(index);
        let result = match self.fault {
            Some(Fault(fault)) if fault == index => Err(Failure::new("injected fault", Errno::IO)),
            _ => self.apply(step),
        };
        match result {
            Ok(()) => {
                self.times.end(index);
                None
            }
            Err(failure) => Some(self.fail(step.action.name(), &step.object, &failure)),
        }
    }

    fn fail(&self, step: &str, object: &str, failure: &Failure) -> u8 {
        let report = Report {
            step: step.to_owned(),
            object: object.to_owned(),
            detail: failure.detail.clone(),
            errno: failure.errno,
        };
        let _nobody_listens = self.channel.send(&Message::Failed(report));
        match failure.errno {
            Errno::NOENT => 127,
            _ => 126,
        }
    }

    fn warn(&self, text: &str) {
        let _nobody_listens = self.channel.send(&Message::Warning(text.to_owned()));
    }

    /// Blocks until somebody lets us go on; an error when nobody ever will.
    fn await_start(&mut self) -> Result<(), Errno> {
        let Some(listener) = self.listener.take() else {
            return match self.channel.receive(None)? {
                Message::Go => Ok(()),
                _ => Err(Errno::CONNRESET),
            };
        };
        loop {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            let connection = rustix::io::retry_on_intr(|| rustix::net::accept_with(&listener, flags))?;
            self.channel = Channel::from_fd(connection);
            if matches!(self.channel.receive(None), Ok(Message::Go)) {
                return Ok(());
            }
        }
    }

    fn root(&self) -> Result<&RootDir, Failure> {
        self.scratch.root.as_ref().ok_or_else(|| Failure::new("there is no root file system yet", Errno::INVAL))
    }

    fn apply(&mut self, step: &Step) -> Result<(), Failure> {
        match &step.action {
            Action::AwaitMappings => self.await_mappings(),
            Action::AwaitNetDevices => self.await_answer(&Message::AwaitsDevices),
            Action::AwaitClocks => self.await_answer(&Message::AwaitsClocks),
            Action::SetAffinity(cpus) => Ok(enter::set_affinity(cpus)?),
            Action::ResetAffinity => {
                enter::reset_affinity();
                Ok(())
            }
            Action::EnterCgroup => self.enter_cgroup(),
            Action::JoinNamespace(kind) => self.join_namespace(*kind),
            Action::UnshareCgroup => unshare(UnshareFlags::NEWCGROUP),
            Action::OffsetClocks(offsets) => enter::offset_clocks(offsets),
            Action::StartSession => Ok(rustix::process::setsid().map(drop)?),
            Action::JoinKeyring(keyring) => enter::join_keyring(&step.object, keyring),
            Action::RaiseLoopback => Ok(berth_sys::process::raise_loopback()?),
            Action::SetHostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
            Action::SetDomainname(name) => Ok(rustix::system::setdomainname(name.as_bytes())?),
            Action::LeaveHostMounts => self.leave_host_mounts(),
            Action::IsolateMounts(propagation) => self.isolate_mounts(*propagation),
            Action::AttachRootfs(place) => self.attach_rootfs(place),
            Action::Mount(mount) => self.mount(mount),
            Action::MakeDevice(node) => Ok(berth_rootfs::devices::make_node(self.root()?, node)?),
            Action::BindDevice(node) => Ok(berth_rootfs::devices::bind_node(self.root()?, node)?),
            Action::MakeLink { to, replace } => {
                let path = std::path::Path::new(&step.object);
                Ok(berth_rootfs::devices::make_link(self.root()?, path, to, *replace)?)
            }
            Action::OpenConsole => self.open_console(),
            Action::AwaitHooks => self.await_answer(&Message::AwaitsHooks),
            Action::InsideHooks(stage) => self.inside_hooks(*stage),
            Action::SetSysctl { key, value } => self.set_sysctl(key, value),
            Action::Mask => self.mask(step.object.as_ref()),
            Action::MakeReadOnly => Ok(berth_rootfs::mask::read_only(self.root()?, step.object.as_ref())?),
            Action::ResolveUser => self.resolve_user(),
            other => self.apply_late(other),
        }
    }

    fn apply_late(&mut self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::MakeCwd => self.make_cwd(),
            Action::FindProgram => self.find_program(),
            Action::CloneRootfs { path, is_slave } => {
                self.rootfs = Some(sources::clone_rootfs(path, *is_slave)?);
                Ok(())
            }
            Action::CloneSource(slot) => self.clone_source(*slot),
            Action::EnterRoot(entry) => self.enter_root(*entry),
            Action::ReadOnlyRoot => self.read_only_root(),
            Action::ShareRoot { propagation, recursive } => self.share_root(*propagation, *recursive),
            Action::SetPersonality(persona) => Ok(berth_sys::process::set_personality(*persona)?),
            Action::SetMemoryPolicy(policy) => Ok(berth_sys::process::set_memory_policy(policy.mode, &policy.nodes)?),
            Action::SetScheduler => self.set_scheduler(),
            Action::SetIoPriority => self.set_io_priority(),
            Action::SetLimit(index) => self.set_limit(*index),
            Action::ForbidNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            Action::ApplyLabel(label) => label.apply().map_err(|errno| Failure::new(label.refusal(errno), errno)),
            Action::LoadSeccomp => self.load_seccomp(),
            Action::EnterCwd => self.enter_cwd(),
            Action::SetUser => self.set_user(),
            Action::SetCapabilities => self.set_capabilities(),
            Action::CloseDescriptors => self.close_descriptors(),
            Action::Execute => self.execute(),
            _ => Err(Failure::new("this step is not for init", Errno::INVAL)),
        }
    }

    fn await_answer(&self, question: &Message) -> Result<(), Failure> {
        self.channel.send(question)?;
        self.expect_go()
    }

    fn expect_go(&self) -> Result<(), Failure> {
        match self.channel.receive(None)? {
            Message::Go => Ok(()),
            _ => Err(Failure::new("the creator is gone", Errno::CONNRESET)),
        }
    }

    fn inside_hooks(&self, stage: hooks::HookStage) -> Result<(), Failure> {
        if stage == hooks::HookStage::CreateContainer {
            // As with runc: its own paths are the host's, relative ones the container's.
            rustix::process::fchdir(self.root()?.as_fd())?;
        }
        let mut state = self.state.clone();
        state.pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        if stage == hooks::HookStage::StartContainer {
            state.status = crate::state::Status::Created;
        }
        // runc has always given these hooks the environment of the program.
        let environment = if stage == hooks::HookStage::StartContainer { self.environment() } else { Vec::new() };
        let environment: Vec<String> = environment.iter().map(|entry| entry.to_string_lossy().into_owned()).collect();
        // A copy of the caller's memory has none of its other threads.
        hooks::run(stage, self.hooks, &state.to_json(), &environment, Meanwhile::default())
            .map_err(|error| Failure::new(report(&error), Errno::CANCELED))
    }

    fn clone_source(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(plan) = self.plan.sources.get(slot) else { return Ok(()) };
        let mount = sources::clone_bind(plan, None)?;
        sources::keep(&mut self.sources, slot, mount);
        Ok(())
    }

    fn mask(&mut self, path: &std::path::Path) -> Result<(), Failure> {
        let mut masks = std::mem::take(&mut self.scratch.masks).labelled(self.plan.mount_label.as_deref());
        let result = masks.mask(self.root()?, path);
        self.scratch.masks = masks;
        Ok(result?)
    }

    /// The standard streams as they shall become 0, 1 and 2.
    fn streams(&self) -> [Option<std::os::fd::BorrowedFd<'_>>; 3] {
        match (&self.stdio, &self.scratch.console) {
            (Stdio::Fds { stdin, stdout, stderr }, _) => {
                [Some(stdin.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd())]
            }
            (Stdio::Terminal { .. }, console) => [console.as_ref().map(AsFd::as_fd); 3],
        }
    }
}

pub(crate) use enter::become_root;

fn unshare(flags: UnshareFlags) -> Result<(), Failure> {
    Ok(berth_sys::namespace::unshare_namespaces(flags)?)
}
