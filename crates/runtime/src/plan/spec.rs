//! From a spec to the list of steps. One function per part of the list.

use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;
use berth_rootfs::mounts::lexical;
use rustix::mount::MountPropagationFlags as Propagation;

use super::mounts::{MountPlan, Source};
use super::{
    Action, Keyring, OverlayMapping, Plan, PlanInput, RESET_REASON, RootEntry, Stage, Step, StepList, checks, devices,
    keyring_name, release_steps,
};
use crate::cgroups::{ignored, resources};
use crate::error::RuntimeError;
use crate::hooks::HookStage;
use crate::id_map::IdMaps;
use crate::namespaces::{Namespace, Namespaces};
use crate::net_devices::NetDevice;
use crate::options::{LayerOwners, Rights, Rootfs};
use crate::process::{Inherited, ProcessPlan};
use crate::rdt::RdtPlan;
use crate::seccomp;

const ENTRY_REASON: &str = "the host's file systems are out of reach from here on";

/// What all parts of the planning read.
struct Planning<'a> {
    input: &'a PlanInput<'a>,
    linux: berth_oci::runtime::Linux,
    namespaces: Namespaces,
    process: ProcessPlan,
    id_maps: IdMaps,
    mounts: Vec<MountPlan>,
    has_seccomp: bool,
    inherited: Inherited,
    /// The remount that makes /dev read-only.
    read_only_dev: Option<MountPlan>,
    list: StepList,
    warnings: Vec<String>,
}

pub(super) fn plan_create(input: &PlanInput<'_>) -> Result<Plan, RuntimeError> {
    let spec = input.spec;
    let linux = spec.linux().clone().ok_or(missing("linux"))?;
    let namespaces = Namespaces::of_spec(linux.namespaces().as_deref().unwrap_or_default())?;
    checks::check(spec, &linux, &namespaces)?;
    if input.tuning.rights == Rights::Ordinary && !namespaces.is_new(Namespace::User) {
        return Err(RuntimeError::NeedsRoot { what: "a container without a new user namespace".to_owned() });
    }
    let process = spec.process().as_ref().ok_or(missing("process"))?;
    let annotations = spec.annotations().clone().unwrap_or_default();
    let process = ProcessPlan::new(process, &annotations)?;
    let id_maps = id_maps(&linux, &namespaces)?;
    let has_seccomp = input.has_seccomp_program || linux.seccomp().is_some();
    if let (Some(profile), false) = (linux.seccomp(), input.has_seccomp_program) {
        seccomp::check(profile)?;
    }
    let mut warnings = Vec::new();
    let mounts = plan_mounts(spec, input.bundle, &namespaces, &mut warnings)?;
    let list = StepList::default();
    let mut planning = Planning {
        input,
        linux,
        namespaces,
        process,
        id_maps,
        mounts,
        has_seccomp,
        inherited: Inherited::default(),
        read_only_dev: None,
        list,
        warnings,
    };
    planning.prepare()?;
    planning.attend()?;
    planning.enter();
    planning.file_systems()?;
    planning.system()?;
    planning.process_settings()?;
    planning.root();
    planning.release();
    Ok(planning.finish())
}

fn missing(field: &'static str) -> RuntimeError {
    RuntimeError::Spec { field, problem: "is missing".to_owned() }
}

fn id_maps(linux: &berth_oci::runtime::Linux, namespaces: &Namespaces) -> Result<IdMaps, RuntimeError> {
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    if namespaces.is_new(Namespace::User) {
        return IdMaps::new(uids, gids);
    }
    if uids.is_empty() && gids.is_empty() {
        return Ok(IdMaps::default());
    }
    if namespaces.is_joined(Namespace::User) {
        // Those of the namespace count; that these are the same is checked when it is there to look at.
        return IdMaps::new(uids, gids);
    }
    let problem = "there are mappings but no user namespace".to_owned();
    Err(RuntimeError::Spec { field: "linux.uidMappings", problem })
}

fn plan_mounts(
    spec: &Spec,
    bundle: &Path,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountPlan>, RuntimeError> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().clone()).filter(|label| !label.is_empty());
    let (mut slots, mut inside) = (0, 0);
    let mut plans = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let mut plan = MountPlan::new(mount, bundle, slots, namespaces.is_private(Namespace::User))?;
        if plan.options.id_map.is_some() && plan.id_maps.is_none() && !namespaces.is_private(Namespace::User) {
            let problem = format!("{} shall be id-mapped, but there is no mapping", plan.destination.display());
            return Err(RuntimeError::Spec { field: "mounts", problem });
        }
        if let Some(root) = spec.root() {
            plan.look_below(&lexical(&bundle.join(root.path())), &plans, inside);
        }
        match &plan.source {
            Source::Bind { .. } => slots += 1,
            Source::Inside { .. } => inside += 1,
            Source::Filesystem { .. } => plan.label(label.as_deref()),
            Source::Cgroup | Source::Remount => {}
        }
        warnings.extend(plan.warning());
        plans.push(plan);
    }
    Ok(plans)
}

impl Planning<'_> {
    fn push(&mut self, stage: Stage, action: Action, object: impl Into<String>, reason: &'static str) {
        self.list.push(stage, action, object, reason);
    }

    fn has_hooks(&self, stage: HookStage) -> bool {
        self.input.spec.hooks().as_ref().is_some_and(|hooks| !stage.of(hooks).is_empty())
    }

    fn prepare(&mut self) -> Result<(), RuntimeError> {
        let stage = Stage::Prepare;
        for label in self.process.labels.clone() {
            self.push(stage, Action::CheckLabel(label.clone()), label.text(), label.field());
        }
        if self.linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) {
            self.push(stage, Action::CheckMountLabel, "", "linux.mountLabel");
        }
        if self.has_seccomp {
            let reason = if self.input.has_seccomp_program { "ready program of the engine" } else { "linux.seccomp" };
            self.push(stage, Action::LoadProgram, "", reason);
        }
        for (kind, path) in self.namespaces.joined.clone() {
            let object = path.display().to_string();
            self.push(stage, Action::OpenNamespace(kind, path), object, "linux.namespaces names a path");
        }
        let cgroup = self.input.tuning.cgroup_driver.path_of(self.input.spec, self.input.id)?;
        self.push(stage, Action::CreateCgroup(cgroup.clone()), cgroup.clone(), "linux.cgroupsPath");
        let resources = resources(self.linux.resources().as_ref())?;
        self.warnings.extend(ignored(self.linux.resources().as_ref()));
        self.push(stage, Action::LimitResources(Box::new(resources)), cgroup, "linux.resources");
        if let Some(asked) = self.linux.intel_rdt() {
            let plan = RdtPlan::new(asked)?;
            let object = plan.text().to_owned();
            self.push(stage, Action::CreateRdtGroup(plan), object, "linux.intelRdt");
        }
        if self.overlay_mapping()? != OverlayMapping::None || self.mounts.iter().any(MountPlan::is_id_mapped) {
            self.push(stage, Action::MapMounts, "", "files belong to the container's users without a copy");
        }
        if self.input.tuning.rights != Rights::Ordinary {
            self.sources(stage)?;
        }
        let flags = self.namespaces.clone_text();
        self.push(stage, Action::CloneInit, flags, "linux.namespaces");
        Ok(())
    }

    fn overlay_mapping(&self) -> Result<OverlayMapping, RuntimeError> {
        Ok(match self.input.rootfs {
            Rootfs::Overlay(_, LayerOwners::Mapped) if self.namespaces.is_private(Namespace::User) => {
                OverlayMapping::Container
            }
            Rootfs::Overlay(_, LayerOwners::LowersMapped { uids, gids }) => {
                OverlayMapping::Lowers(IdMaps::new(uids, gids)?)
            }
            _ => OverlayMapping::None,
        })
    }

    /// What is mounted from the host: by the caller, or by init where only that has the right to.
    fn sources(&mut self, stage: Stage) -> Result<(), RuntimeError> {
        let is_ordinary = self.input.tuning.rights == Rights::Ordinary;
        if is_ordinary && let Some(mount) = self.mounts.iter().find(|mount| mount.is_id_mapped()) {
            let what = format!("an id-mapped mount ({})", mount.destination.display());
            return Err(RuntimeError::NeedsRoot { what });
        }
        match self.input.rootfs {
            Rootfs::Overlay(overlay, _) => {
                let object = overlay.upper.as_deref().unwrap_or(Path::new("overlay")).display().to_string();
                let mapping = self.overlay_mapping()?;
                let mount = Action::MountOverlay(overlay.clone(), mapping);
                self.push(stage, mount, object, "detached: the host never sees it");
            }
            Rootfs::Bundle => {
                let root = self.input.spec.root().as_ref().ok_or(missing("root"))?;
                let path = self.input.bundle.join(root.path());
                let object = path.display().to_string();
                let is_slave =
                    propagation(self.linux.rootfs_propagation().as_deref())? == Some(Propagation::DOWNSTREAM);
                self.push(stage, Action::CloneRootfs { path, is_slave }, object, "root.path");
            }
        }
        let sources: Vec<(usize, PathBuf)> = self
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                Source::Bind { path, slot, .. } => Some((*slot, path.clone())),
                _ => None,
            })
            .collect();
        for (slot, path) in sources {
            let object = path.display().to_string();
            self.push(stage, Action::CloneSource(slot), object, "opened with the host's rights and view");
        }
        Ok(())
    }

    fn attend(&mut self) -> Result<(), RuntimeError> {
        let stage = Stage::Attend;
        if self.namespaces.is_private(Namespace::User) {
            for index in 0..self.process.limits.len() {
                let name = self.process.limits.get(index).map_or("", |limit| limit.name);
                self.push(stage, Action::RaiseLimit(index), name, "init may lower, but not raise it");
            }
        }
        if self.namespaces.is_joined(Namespace::User) && !self.id_maps.is_empty() {
            self.push(stage, Action::CompareMaps, "", "the mappings of a joined namespace are its own");
        }
        if let Some(score) = self.process.oom_score {
            self.push(stage, Action::SetOomScore(score), score.to_string(), "process.oomScoreAdj");
        }
        if self.linux.intel_rdt().is_some() {
            self.push(stage, Action::JoinRdtGroup, "", "linux.intelRdt");
        }
        self.net_devices()?;
        if self.namespaces.is_new(Namespace::User) {
            self.push(stage, Action::MapIds, "", "linux.uidMappings, linux.gidMappings");
        }
        if self.clocks_are_set_outside() {
            let offsets = offsets(&self.linux);
            self.push(stage, Action::WriteClocks(offsets.clone()), offsets.trim(), "linux.timeOffsets");
        }
        for hook in [HookStage::Prestart, HookStage::CreateRuntime] {
            if self.has_hooks(hook) {
                self.push(stage, Action::OutsideHooks(hook), hook.text(), "hooks");
            }
        }
        Ok(())
    }

    fn net_devices(&mut self) -> Result<(), RuntimeError> {
        let devices = NetDevice::plan(&self.linux.net_devices().clone().unwrap_or_default())?;
        if !devices.is_empty() && !self.namespaces.is_private(Namespace::Network) {
            let problem = "needs a network namespace, which the container shares with the host".to_owned();
            return Err(RuntimeError::Spec { field: "linux.netDevices", problem });
        }
        for device in devices {
            let object = format!("{} {}", device.host, device.container);
            self.push(Stage::Attend, Action::TakeNetDevice(device), object, "linux.netDevices");
        }
        Ok(())
    }

    /// Until exec init is not dumpable, so the files about it are the host's root's: who is root only in a user namespace cannot
    /// write them.
    fn clocks_are_set_outside(&self) -> bool {
        let has_offsets = self.linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
        has_offsets && self.namespaces.is_private(Namespace::User)
    }

    fn enter(&mut self) {
        let stage = Stage::Init;
        if self.namespaces.is_new(Namespace::User) {
            self.push(stage, Action::AwaitMappings, "", "root inside needs a mapping first");
        }
        self.push(stage, Action::EnterCgroup, "", "by init itself: from outside it would cost a grace period");
        self.push(stage, Action::ResetAffinity, "", RESET_REASON);
        for (kind, path) in self.namespaces.joined.clone() {
            if kind != Namespace::Pid {
                let object = format!("{} {}", kind.text(), path.display());
                self.push(stage, Action::JoinNamespace(kind), object, "linux.namespaces names a path");
            }
        }
        if self.namespaces.is_new(Namespace::Cgroup) {
            self.push(stage, Action::UnshareCgroup, "", "after entering, so that its root is the container's group");
        }
        if self.namespaces.is_new(Namespace::Time) {
            let offsets = if self.clocks_are_set_outside() { String::new() } else { offsets(&self.linux) };
            self.push(stage, Action::OffsetClocks(offsets.clone()), offsets.trim(), "linux.timeOffsets");
            if self.clocks_are_set_outside() {
                self.push(stage, Action::AwaitClocks, "", "linux.timeOffsets");
            }
        }
        if self.linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
            self.push(stage, Action::AwaitNetDevices, "", "kernel parameters may be about them");
        }
        self.push(stage, Action::StartSession, "", "own session and process group");
        if !self.input.tuning.keep_keyring {
            let keyring = Keyring { label: self.process.keyring_label(), is_new: true };
            self.push(
                stage,
                Action::JoinKeyring(keyring),
                keyring_name(self.input.id),
                "keys of the host stay outside",
            );
        }
        if self.namespaces.is_new(Namespace::Network) {
            self.push(stage, Action::RaiseLoopback, "lo", "a new network namespace");
        }
        let spec = self.input.spec;
        if let Some(name) = spec.hostname().clone().filter(|name| !name.is_empty()) {
            self.push(stage, Action::SetHostname(name.clone()), name, "hostname");
        }
        if let Some(name) = spec.domainname().clone().filter(|name| !name.is_empty()) {
            self.push(stage, Action::SetDomainname(name.clone()), name, "domainname");
        }
    }

    fn file_systems(&mut self) -> Result<(), RuntimeError> {
        let stage = Stage::Init;
        let propagation = propagation(self.linux.rootfs_propagation().as_deref())?;
        let isolation = match propagation {
            Some(Propagation::PRIVATE) => Propagation::PRIVATE,
            _ => Propagation::DOWNSTREAM,
        };
        if !self.namespaces.is_private(Namespace::Mount) {
            self.push(stage, Action::LeaveHostMounts, "", "the host's mount table does not change");
        }
        self.push(stage, Action::IsolateMounts(isolation), "/", "mounts made here never reach the host");
        if self.input.tuning.rights == Rights::Ordinary {
            self.sources(stage)?;
        }
        let place = self.place_of_rootfs();
        let object = place.display().to_string();
        self.push(stage, Action::AttachRootfs(place), object, "visible in this mount namespace only");
        for mut mount in self.mounts.clone() {
            // Its nodes, links and mounts are still to come.
            self.read_only_dev = mount.is_read_only_dev().then(|| mount.take_read_only()).or(self.read_only_dev.take());
            let text = mount.text();
            self.push(stage, Action::Mount(Box::new(mount)), text, "mounts");
        }
        let in_user_ns = self.namespaces.is_private(Namespace::User) || self.input.tuning.rights != Rights::Full;
        devices::steps(self.linux.devices().as_deref().unwrap_or_default(), &self.mounts, in_user_ns, &mut self.list)?;
        if self.process.terminal {
            self.push(stage, Action::OpenConsole, "/dev/console", "process.terminal");
        }
        if self.has_hooks(HookStage::Prestart) || self.has_hooks(HookStage::CreateRuntime) {
            self.push(stage, Action::AwaitHooks, "", "hooks");
        }
        if self.has_hooks(HookStage::CreateContainer) {
            let hook = HookStage::CreateContainer;
            self.push(stage, Action::InsideHooks(hook), hook.text(), "hooks");
        }
        Ok(())
    }

    /// Where a hook that enters the mount namespace finds it: at its path on the host, as with runc. On top of everything where
    /// there is no such path, or where it stays below a root that is not pivoted.
    fn place_of_rootfs(&self) -> PathBuf {
        let is_private = self.namespaces.is_new(Namespace::Mount) && !self.input.tuning.no_pivot;
        match (self.input.rootfs, self.input.spec.root()) {
            (Rootfs::Bundle, Some(root)) if is_private => self.input.bundle.join(root.path()),
            _ => PathBuf::from("/"),
        }
    }

    fn system(&mut self) -> Result<(), RuntimeError> {
        let mut settings: Vec<(&String, &String)> = self.linux.sysctl().iter().flatten().collect();
        settings.sort();
        let mut steps: Vec<(Action, String)> = Vec::new();
        for (key, value) in settings {
            let path = crate::sysctl::path(key, &self.namespaces)?;
            let has_domain = self.input.spec.domainname().as_ref().is_some_and(|name| !name.is_empty());
            if path == "kernel/hostname" || (path == "kernel/domainname" && has_domain) {
                let problem = format!("{key}: use hostname and domainname");
                return Err(RuntimeError::Spec { field: "linux.sysctl", problem });
            }
            steps.push((Action::SetSysctl { key: path, value: value.clone() }, format!("{key}={value}")));
        }
        for (action, object) in steps {
            self.push(Stage::Init, action, object, "linux.sysctl");
        }
        if let Some(remount) = self.read_only_dev.take() {
            let text = remount.text();
            self.push(Stage::Init, Action::Mount(Box::new(remount)), text, "mounts: what belongs into it is there now");
        }
        for path in unique(self.linux.readonly_paths().clone()) {
            self.push(Stage::Init, Action::MakeReadOnly, path, "linux.readonlyPaths");
        }
        for path in unique(self.linux.masked_paths().clone()) {
            self.push(Stage::Init, Action::Mask, path, "linux.maskedPaths");
        }
        Ok(())
    }

    /// What exec keeps: personality, memory policy, I/O priority.
    fn process_settings(&mut self) -> Result<(), RuntimeError> {
        let mut inherited = Inherited::of_linux(Some(&self.linux), self.process.affinity.clone())?;
        inherited.keeps_keyring = self.input.tuning.keep_keyring;
        inherited.steps(&mut self.list);
        self.inherited = inherited;
        self.process.personal_steps(&mut self.list);
        Ok(())
    }

    fn root(&mut self) {
        let stage = Stage::Init;
        let user = self.process.user.to_string();
        self.push(stage, Action::ResolveUser, user, "process.user, looked up inside the root");
        let cwd = self.process.cwd.display().to_string();
        self.push(stage, Action::MakeCwd, cwd, "process.cwd may not exist yet");
        let (entry, reason) = match (self.namespaces.is_private(Namespace::Mount), self.input.tuning.no_pivot) {
            (false, _) => (RootEntry::AmongHostMounts, "linux.namespaces names no mount namespace"),
            (true, true) => (RootEntry::Chroot, ENTRY_REASON),
            (true, false) => (RootEntry::Pivot, ENTRY_REASON),
        };
        self.push(stage, Action::EnterRoot(entry), "/", reason);
        let asked = self.linux.rootfs_propagation().clone().unwrap_or_default();
        if let Some(propagation) = propagation(Some(&asked)).ok().flatten()
            && propagation != Propagation::DOWNSTREAM
        {
            let recursive = asked.starts_with('r');
            self.push(stage, Action::ShareRoot { propagation, recursive }, "/", "linux.rootfsPropagation");
        }
        if self.input.spec.root().as_ref().and_then(berth_oci::runtime::Root::readonly).unwrap_or(false) {
            self.push(stage, Action::ReadOnlyRoot, "/", "root.readonly");
        }
        if self.input.tuning.finds_program {
            let program = self.process.program_text();
            self.push(stage, Action::FindProgram, program, "process.args; engines expect create to tell");
        }
    }

    fn release(&mut self) {
        let has_hooks = self.has_hooks(HookStage::StartContainer);
        if has_hooks && let Some(scheduler) = &mut self.process.scheduler {
            // A process of the deadline scheduler forks only what gets another one (sched(7)), and its hook comes after it.
            scheduler.resets_for_children_of_deadline();
        }
        release_steps(&mut self.list, &self.process, self.has_seccomp, has_hooks);
    }

    fn finish(self) -> Plan {
        let mut steps: Vec<Step> = self.list.0;
        steps.sort_by_key(|step| step.stage);
        let mount_label = self.linux.mount_label().clone().filter(|label| !label.is_empty());
        let Self { namespaces, process, inherited, id_maps, warnings, mounts, .. } = self;
        let (mut sources, mut inside) = (Vec::new(), Vec::new());
        for mount in mounts {
            match mount.source {
                Source::Bind { .. } => sources.push(mount),
                Source::Inside { .. } => inside.push(mount),
                _ => {}
            }
        }
        Plan { steps, namespaces, process, inherited, sources, inside, id_maps, mount_label, warnings }
    }
}

/// In order, each once.
fn unique(paths: Option<Vec<String>>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut paths = paths.unwrap_or_default();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

fn propagation(text: Option<&str>) -> Result<Option<Propagation>, RuntimeError> {
    Ok(Some(match text.unwrap_or_default() {
        "" => return Ok(None),
        "shared" | "rshared" => Propagation::SHARED,
        "slave" | "rslave" => Propagation::DOWNSTREAM,
        "private" | "rprivate" => Propagation::PRIVATE,
        "unbindable" | "runbindable" => Propagation::UNBINDABLE,
        other => {
            let problem = format!("{other:?} is not shared, slave, private or unbindable");
            return Err(RuntimeError::Spec { field: "linux.rootfsPropagation", problem });
        }
    }))
}

/// Lines for `/proc/self/timens_offsets`.
fn offsets(linux: &berth_oci::runtime::Linux) -> String {
    let mut lines: Vec<String> = linux
        .time_offsets()
        .iter()
        .flatten()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)))
        .collect();
    lines.sort();
    lines.concat()
}
