//! Create: walks the caller's part of the plan, clones init, attends to it until it is ready; undoes everything on failure.

mod attend;
mod clone;
mod prepare;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::Spec;
use berth_sys::clone::Child;
use berth_types::Span;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::cgroup_driver::Keeper;
use crate::channel::{Channel, Message, Report, wait_readable};
use crate::container::{Container, Process, Waiting};
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::id_map::{IdMaps, write_proc};
use crate::labels::Label;
use crate::namespaces::Namespace;
use crate::net_devices::Mover;
use crate::options::{CreateOptions, Fault};
use crate::plan::{Action, OverlayMapping, Plan, PlanInput, Stage, Step, plan_create};
use crate::rdt::RdtGroup;
use crate::seccomp::Filter;
use crate::state::{ContainerState, OCI_VERSION, Status};
use crate::trace::Times;

pub(crate) use clone::{attach_from_outside, clone_in_user_ns, clone_into_pid_ns};

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
            Action::MountOverlay(overlay, mapping) => {
                let problem = "no user namespace carries the mapping of its owners";
                let carrier = |maps| self.mapping(maps).ok_or_else(|| failed(step, problem, Errno::INVAL));
                self.rootfs = Some(match mapping {
                    OverlayMapping::None => overlay.mount_detached()?,
                    OverlayMapping::Container => overlay.mount_detached_idmapped(carrier(None)?.as_fd())?,
                    OverlayMapping::Lowers(maps) => {
                        overlay.mount_detached_with_mapped_lowers(carrier(Some(maps))?.as_fd())?
                    }
                });
                Ok(())
            }
            Action::CloneRootfs { path, is_slave } => self.clone_rootfs(step, path, *is_slave),
            Action::CloneSource(slot) => self.clone_source(step, *slot),
            Action::CloneInit => self.clone_init(step),
            other => self.apply_attending(step, other),
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
            meanwhile: self.options.tuning.meanwhile,
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
            let meanwhile = self.options.tuning.meanwhile;
            let _warnings =
                hooks::run_all(HookStage::Poststop, self.spec.hooks().as_ref(), &state.to_json(), meanwhile);
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

pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
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
