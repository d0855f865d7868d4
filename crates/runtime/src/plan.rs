//! The plan: what will be done, in which order, to what and why. Pure: same spec and facts, same list.
//!
//! The list has four parts, see [`Stage`]. Order within init follows runtime-spec "Lifecycle" and these rules: cgroup before
//! cgroup namespace; mounts before hooks before pivot; read-only last among the mounts; privileges go last of all.

mod checks;
mod devices;
mod mounts;
mod spec;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use berth_cgroup::Resources;
use berth_oci::runtime::{Process, Spec};
use berth_rootfs::OverlayRootfs;
use berth_rootfs::devices::DeviceNode;
use rustix::mount::MountPropagationFlags;

use crate::error::RuntimeError;
use crate::hooks::HookStage;
use crate::labels::Label;
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::{Namespace, Namespaces};
use crate::net_devices::NetDevice;
use crate::options::{Rootfs, Tuning};
use crate::process::{Inherited, ProcessPlan};
use crate::rdt::RdtPlan;

pub(crate) use mounts::{MountPlan, Source as MountSource};

/// Name of the step that becomes the container's program.
pub(crate) const EXECUTE: &str = "execute";
/// Name of the step that looks whether there is one.
pub(crate) const FIND_PROGRAM: &str = "find-program";

/// Why a process does not keep the CPUs of who starts it.
pub(crate) const RESET_REASON: &str = "the caller's own CPUs are not the container's";

/// Name of the steps that run hooks in the container's namespaces.
pub(crate) const INSIDE_HOOKS: &str = "run-container-hooks";

/// Who does a step, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) enum Stage {
    /// The caller, before init exists.
    Prepare,
    /// The caller, while init is there: what needs init's pid or the host's privileges.
    Attend,
    /// Init, until it waits for its start.
    Init,
    /// Init, from start to exec.
    Release,
}

/// Of which layers the owners are mapped, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OverlayMapping {
    None,
    /// All, as the container's user namespace has it.
    Container,
    Lowers(crate::id_map::IdMaps),
}

/// What is done. The payload is all that the doing needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    CheckLabel(Label),
    CheckMountLabel,
    /// CPUs of the caller while it clones (exec).
    PinCaller(Vec<usize>),
    CreateRdtGroup(RdtPlan),
    CreateCgroup(String),
    LimitResources(Box<Resources>),
    OpenNamespace(Namespace, PathBuf),
    MapMounts,
    MountOverlay(OverlayRootfs, OverlayMapping),
    CloneRootfs {
        path: PathBuf,
        is_slave: bool,
    },
    CloneSource(usize),
    LoadProgram,
    CloneInit,
    MapIds,
    CompareMaps,
    WriteClocks(String),
    JoinRdtGroup,
    TakeNetDevice(NetDevice),
    SetOomScore(i32),
    RaiseLimit(usize),
    OutsideHooks(HookStage),
    AwaitMappings,
    AwaitClocks,
    AwaitNetDevices,
    SetAffinity(Vec<usize>),
    /// To all CPUs that the cgroup has, whatever the caller was pinned to.
    ResetAffinity,
    JoinNamespace(Namespace),
    EnterCgroup,
    UnshareCgroup,
    OffsetClocks(String),
    StartSession,
    JoinKeyring(Keyring),
    RaiseLoopback,
    SetHostname(String),
    SetDomainname(String),
    /// Of a container that shares the host's mount namespace: its mounts are made in a namespace of their own.
    LeaveHostMounts,
    IsolateMounts(MountPropagationFlags),
    /// At a path of the host, or on top of everything.
    AttachRootfs(PathBuf),
    Mount(Box<MountPlan>),
    MakeDevice(DeviceNode),
    BindDevice(DeviceNode),
    MakeLink {
        to: &'static str,
        replace: bool,
    },
    OpenConsole,
    AwaitHooks,
    InsideHooks(HookStage),
    SetSysctl {
        key: String,
        value: String,
    },
    Mask,
    MakeReadOnly,
    ResolveUser,
    MakeCwd,
    FindProgram,
    EnterRoot(RootEntry),
    ReadOnlyRoot,
    ShareRoot {
        propagation: MountPropagationFlags,
        recursive: bool,
    },
    SetPersonality(u32),
    SetMemoryPolicy(MemoryPolicy),
    SetScheduler,
    SetIoPriority,
    SetLimit(usize),
    ForbidNewPrivileges,
    ApplyLabel(Label),
    LoadSeccomp,
    EnterCwd,
    SetUser,
    SetCapabilities,
    CloseDescriptors,
    Execute,
}

/// The session keyring of a container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keyring {
    /// Of the container, not of the runtime, so that its processes may use it.
    pub(crate) label: Option<Label>,
    pub(crate) is_new: bool,
}

/// As runc names it.
pub(crate) fn keyring_name(id: &str) -> String {
    format!("_ses.{id}")
}

/// How the container's root becomes its processes' root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootEntry {
    Pivot,
    /// Where the host's root cannot be pivoted (a ramdisk).
    Chroot,
    /// Back in the host's mount namespace, in a copy of the mounts that is part of no namespace: the host's table never has them, and
    /// they go with the last process that stands in them.
    AmongHostMounts,
}

/// One step of the list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) stage: Stage,
    pub(crate) action: Action,
    pub(crate) object: String,
    pub(crate) reason: &'static str,
}

impl Action {
    /// Stable: appears in plans, spans and errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::CheckLabel(_) | Self::CheckMountLabel => "check-label",
            Self::PinCaller(_) => "pin-caller",
            Self::CreateRdtGroup(_) => "create-rdt-group",
            Self::CreateCgroup(_) => "create-cgroup",
            Self::LimitResources(_) => "limit-resources",
            Self::OpenNamespace(..) => "open-namespace",
            Self::MapMounts => "map-mounts",
            Self::MountOverlay(..) => "mount-rootfs",
            Self::CloneRootfs { .. } => "clone-rootfs",
            Self::CloneSource(_) => "clone-source",
            Self::LoadProgram => "prepare-seccomp",
            Self::CloneInit => "clone-init",
            Self::MapIds => "map-ids",
            Self::CompareMaps => "compare-maps",
            Self::WriteClocks(_) => "write-clocks",
            Self::JoinRdtGroup => "join-rdt-group",
            Self::TakeNetDevice(_) => "take-net-device",
            Self::SetOomScore(_) => "set-oom-score",
            Self::RaiseLimit(_) => "raise-limit",
            Self::OutsideHooks(_) => "run-runtime-hooks",
            Self::AwaitMappings => "await-mappings",
            Self::AwaitClocks => "await-clocks",
            Self::AwaitNetDevices => "await-net-devices",
            Self::SetAffinity(_) => "set-affinity",
            Self::ResetAffinity => "reset-affinity",
            Self::JoinNamespace(_) => "join-namespace",
            Self::EnterCgroup => "enter-cgroup",
            Self::UnshareCgroup => "unshare-cgroup-namespace",
            Self::OffsetClocks(_) => "offset-clocks",
            Self::StartSession => "start-session",
            Self::JoinKeyring(_) => "join-keyring",
            Self::RaiseLoopback => "raise-loopback",
            Self::SetHostname(_) => "set-hostname",
            Self::SetDomainname(_) => "set-domainname",
            Self::LeaveHostMounts => "leave-host-mounts",
            Self::IsolateMounts(_) => "isolate-mounts",
            Self::AttachRootfs(_) => "attach-rootfs",
            Self::Mount(_) => "mount",
            Self::MakeDevice(_) => "make-device",
            Self::BindDevice(_) => "bind-device",
            Self::MakeLink { .. } => "make-link",
            Self::OpenConsole => "open-console",
            Self::AwaitHooks => "await-runtime-hooks",
            Self::InsideHooks(_) => INSIDE_HOOKS,
            Self::SetSysctl { .. } => "set-sysctl",
            Self::Mask => "mask",
            Self::MakeReadOnly => "make-read-only",
            Self::ResolveUser => "resolve-user",
            Self::MakeCwd => "make-cwd",
            Self::FindProgram => FIND_PROGRAM,
            Self::EnterRoot(_) => "enter-rootfs",
            Self::ReadOnlyRoot => "read-only-rootfs",
            Self::ShareRoot { .. } => "set-rootfs-propagation",
            Self::SetPersonality(_) => "set-personality",
            Self::SetMemoryPolicy(_) => "set-memory-policy",
            Self::SetScheduler => "set-scheduler",
            Self::SetIoPriority => "set-io-priority",
            Self::SetLimit(_) => "set-limit",
            Self::ForbidNewPrivileges => "forbid-new-privileges",
            Self::ApplyLabel(_) => "apply-label",
            Self::LoadSeccomp => "load-seccomp",
            Self::EnterCwd => "enter-cwd",
            Self::SetUser => "set-user",
            Self::SetCapabilities => "set-capabilities",
            Self::CloseDescriptors => "close-descriptors",
            Self::Execute => EXECUTE,
        }
    }
}

/// A whole plan, and what its steps share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) namespaces: Namespaces,
    pub(crate) process: ProcessPlan,
    /// For processes that are added later.
    pub(crate) inherited: Inherited,
    /// Mounts whose source is cloned by the caller, in slot order.
    pub(crate) sources: Vec<MountPlan>,
    /// Mounts whose source an earlier mount made, in slot order.
    pub(crate) inside: Vec<MountPlan>,
    pub(crate) id_maps: crate::id_map::IdMaps,
    /// SELinux: `linux.mountLabel`, for what is mounted besides the spec's file systems.
    pub(crate) mount_label: Option<String>,
    /// What is asked for and has no effect here.
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// What the container's cgroup shall have.
    pub(crate) fn resources(&self) -> Resources {
        let found = self.steps.iter().find_map(|step| match &step.action {
            Action::LimitResources(resources) => Some(resources.as_ref().clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// Half-open range of the steps of a stage.
    pub(crate) fn range(&self, stage: Stage) -> std::ops::Range<usize> {
        range(&self.steps, stage)
    }
}

/// Half-open range of the steps of a stage; stages never interleave.
pub(crate) fn range(steps: &[Step], stage: Stage) -> std::ops::Range<usize> {
    let start = steps.partition_point(|step| step.stage < stage);
    let end = steps.partition_point(|step| step.stage <= stage);
    start..end
}

/// Collects steps of one stage.
#[derive(Debug, Default)]
pub(crate) struct StepList(pub(crate) Vec<Step>);

impl StepList {
    pub(crate) fn push(&mut self, stage: Stage, action: Action, object: impl Into<String>, reason: &'static str) {
        self.0.push(Step { stage, action, object: object.into(), reason });
    }
}

/// What a plan needs besides the spec.
#[derive(Debug)]
pub(crate) struct PlanInput<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a std::path::Path,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) tuning: &'a Tuning,
    pub(crate) has_seccomp_program: bool,
}

/// Plans the creation of a container.
pub(crate) fn plan_create(input: &PlanInput<'_>) -> Result<Plan, RuntimeError> {
    spec::plan_create(input)
}

/// The steps that turn a cloned child into a process of the container: the end of create's list, and of exec's.
pub(crate) fn release_steps(list: &mut StepList, process: &ProcessPlan, has_seccomp: bool, has_hooks: bool) {
    let program = process.program_text();
    if process.scheduler.is_some() {
        list.push(Stage::Release, Action::SetScheduler, "", "process.scheduler");
    }
    for (index, limit) in process.limits.iter().enumerate() {
        list.push(Stage::Release, Action::SetLimit(index), limit.name, "process.rlimits");
    }
    if process.no_new_privileges {
        list.push(Stage::Release, Action::ForbidNewPrivileges, "", "process.noNewPrivileges");
    }
    for label in &process.labels {
        list.push(Stage::Release, Action::ApplyLabel(label.clone()), label.text(), label.field());
    }
    list.push(Stage::Release, Action::EnterCwd, process.cwd.display().to_string(), "process.cwd");
    list.push(Stage::Release, Action::CloseDescriptors, "", "no descriptor of the host may reach the program");
    // Without no_new_privs the kernel wants CAP_SYS_ADMIN for a filter, so it is loaded while we still have that. What follows are
    // calls that every kernel has: a filter may say of the newer ones that there are none.
    if has_seccomp && !process.no_new_privileges {
        list.push(Stage::Release, Action::LoadSeccomp, "", "linux.seccomp");
    }
    list.push(Stage::Release, Action::SetUser, process.user.to_string(), "process.user");
    list.push(Stage::Release, Action::SetCapabilities, "", "process.capabilities");
    if has_seccomp && process.no_new_privileges {
        list.push(Stage::Release, Action::LoadSeccomp, "", "linux.seccomp");
    }
    // What is executed is a file of the container's: it may do what the container's program may, and nothing more.
    if has_hooks {
        let hook = HookStage::StartContainer;
        list.push(Stage::Release, Action::InsideHooks(hook), hook.text(), "hooks");
    }
    list.push(Stage::Release, Action::Execute, program, "process.args");
}

/// What exec plans by, besides its process.
#[derive(Debug)]
pub(crate) struct ExecInput<'a> {
    /// Of the container.
    pub(crate) id: &'a str,
    pub(crate) process: &'a Process,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) has_seccomp: bool,
    pub(crate) annotations: &'a std::collections::HashMap<String, String>,
    pub(crate) inherited: &'a Inherited,
}

/// The steps of a process that joins a running container.
pub(crate) fn plan_exec(input: &ExecInput<'_>) -> Result<Plan, RuntimeError> {
    let process = ProcessPlan::new(input.process, input.annotations)?;
    let affinity = if process.affinity.is_empty() { &input.inherited.affinity } else { &process.affinity };
    let mut list = StepList::default();
    for label in &process.labels {
        list.push(Stage::Prepare, Action::CheckLabel(label.clone()), label.text(), label.field());
    }
    if let Some(cpus) = &affinity.initial {
        let object = format!("{cpus:?}");
        list.push(Stage::Prepare, Action::PinCaller(cpus.clone()), object, "process.execCPUAffinity.initial");
    }
    list.push(Stage::Prepare, Action::CloneInit, "", "a process of the container's own");
    if let Some(score) = process.oom_score {
        list.push(Stage::Attend, Action::SetOomScore(score), score.to_string(), "process.oomScoreAdj");
    }
    list.push(Stage::Init, Action::EnterCgroup, "", "the container's limits hold for it too");
    if let Some(cpus) = &affinity.last {
        let object = format!("{cpus:?}");
        list.push(Stage::Init, Action::SetAffinity(cpus.clone()), object, "process.execCPUAffinity.final");
    } else if affinity.initial.is_none() {
        list.push(Stage::Init, Action::ResetAffinity, "", RESET_REASON);
    }
    let object = input.namespaces.joined_by_exec_text();
    list.push(Stage::Init, Action::JoinNamespace(Namespace::Mount), object, "exec joins what start made");
    list.push(Stage::Init, Action::StartSession, "", "own session and process group");
    if !input.inherited.keeps_keyring {
        let keyring = Keyring { label: process.keyring_label(), is_new: false };
        list.push(Stage::Init, Action::JoinKeyring(keyring), keyring_name(input.id), "keys of the caller stay outside");
    }
    if process.terminal {
        list.push(Stage::Init, Action::OpenConsole, "/dev/pts", "process.terminal");
    }
    input.inherited.steps(&mut list);
    process.personal_steps(&mut list);
    list.push(Stage::Init, Action::ResolveUser, process.user.to_string(), "process.user");
    release_steps(&mut list, &process, input.has_seccomp, false);
    Ok(Plan {
        steps: list.0,
        namespaces: input.namespaces.clone(),
        process,
        inherited: input.inherited.clone(),
        sources: Vec::new(),
        inside: Vec::new(),
        id_maps: crate::id_map::IdMaps::default(),
        mount_label: None,
        warnings: Vec::new(),
    })
}

/// The pure plan as named steps with object and reason, for `--plan` (no root needed).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlannedStep {
    pub name: String,
    pub object: String,
    pub reason: String,
}

/// What [`crate::Container::create`] and `start` would do, in order. Pure.
///
/// # Errors
/// As create: a spec that is not valid or asks for something this runtime cannot do.
pub fn plan(spec: &Spec, rootfs: &Rootfs) -> Result<Vec<PlannedStep>, RuntimeError> {
    let tuning = Tuning::default();
    let plan = plan_create(&PlanInput {
        spec,
        id: "container",
        bundle: std::path::Path::new("/"),
        rootfs,
        tuning: &tuning,
        has_seccomp_program: false,
    })?;
    let mut planned = Vec::with_capacity(plan.steps.len());
    for step in plan.steps {
        let named =
            |object| PlannedStep { name: step.action.name().to_owned(), object, reason: step.reason.to_owned() };
        match (&step.action, berth_cgroup::Layout::detect()) {
            // Each limit as the file of this host it becomes.
            (Action::LimitResources(resources), Ok(layout)) => {
                planned
                    .extend(berth_cgroup::plan(&layout, resources)?.iter().map(|setting| named(setting.to_string())));
            }
            _ => planned.push(named(step.object.clone())),
        }
    }
    Ok(planned)
}
