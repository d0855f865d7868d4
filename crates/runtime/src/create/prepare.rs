//! The caller's steps before init exists: what it opens, makes and clones.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_cgroup::Cgroup;
use berth_types::{Classify, ErrorClass};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Creation, errno_of, failed};
use crate::cgroup_driver::{CgroupDriver, start_scope};
use crate::error::RuntimeError;
use crate::id_map::{IdMaps, mapping_namespace};
use crate::namespaces::Namespace;
use crate::plan::{Action, MountSource, OverlayMapping, Step};
use crate::process::capability_names;
use crate::rdt::RdtPlan;
use crate::seccomp::Filter;
use crate::sources::{self, SourceError};

impl Creation<'_> {
    pub(super) fn load_program(&mut self) -> Result<(), RuntimeError> {
        let capabilities = capability_names(self.plan.process.capabilities.as_ref());
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let (ready, cache) = (self.options.seccomp_program.as_deref(), self.options.tuning.seccomp_cache.as_deref());
        self.filter = Filter::new(ready, profile, &capabilities, cache)?;
        Ok(())
    }

    pub(super) fn open_namespace(&mut self, step: &Step, kind: Namespace, path: &Path) -> Result<(), RuntimeError> {
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
    pub(super) fn create_cgroup(&mut self, path: &str) -> Result<(), RuntimeError> {
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

    pub(super) fn warn_of_lost_limits(&mut self) {
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

    pub(super) fn map_mounts(&mut self, step: &Step) -> Result<(), RuntimeError> {
        let is_new = self.plan.namespaces.is_new(Namespace::User);
        let own = is_new.then(|| self.plan.id_maps.clone());
        let mounts = self.plan.sources.iter().chain(&self.plan.inside);
        let asked = mounts.filter_map(|mount| mount.id_maps.clone());
        let of_lowers = self.plan.steps.iter().find_map(|step| match &step.action {
            Action::MountOverlay(_, OverlayMapping::Lowers(maps)) => Some(maps.clone()),
            _ => None,
        });
        for maps in own.into_iter().chain(asked).chain(of_lowers) {
            if !self.mappings.iter().any(|(made, _)| *made == maps) {
                let user_ns = mapping_namespace(&maps)
                    .map_err(|errno| failed(step, "cannot make a user namespace that carries the mapping", errno))?;
                self.mappings.push((maps, user_ns));
            }
        }
        Ok(())
    }

    /// A user namespace that carries these mappings, or (`None`) the container's own.
    pub(super) fn mapping(&self, maps: Option<&IdMaps>) -> Option<&OwnedFd> {
        if let (None, Some(user_ns)) = (maps, &self.user_ns) {
            return Some(user_ns);
        }
        let maps = maps.unwrap_or(&self.plan.id_maps);
        self.mappings.iter().find(|(made, _)| made == maps).map(|(_, fd)| fd)
    }

    /// For a source that init found inside the root.
    pub(super) fn map_ids_of(&self, slot: u32, mount: &OwnedFd) -> Result<(), RuntimeError> {
        let is_step = |step: &&Step| {
            matches!(&step.action, Action::Mount(plan)
            if matches!(plan.source, MountSource::Inside { slot: own, .. } if u32::try_from(own) == Ok(slot)))
        };
        let step = self.plan.steps.iter().find(is_step);
        let plan = usize::try_from(slot).ok().and_then(|slot| self.plan.inside.get(slot));
        let (Some(step), Some(plan)) = (step, plan) else {
            return Err(RuntimeError::InitDied { step: self.times.current(&self.plan.steps) });
        };
        let user_ns = self.mapping(plan.id_maps.as_ref());
        sources::map_ids(plan, mount, user_ns).map_err(|error| source_error(step, error))
    }

    pub(super) fn create_rdt_group(&mut self, plan: &RdtPlan) -> Result<(), RuntimeError> {
        let mount = crate::rdt::mount_point()?;
        let path = mount.display().to_string();
        let error = |source| RuntimeError::File { what: "make a resctrl group below", path, source };
        self.rdt = Some(plan.create(&mount, &self.state.id).map_err(error)?);
        Ok(())
    }

    pub(super) fn clone_rootfs(&mut self, step: &Step, path: &Path, is_slave: bool) -> Result<(), RuntimeError> {
        self.rootfs = Some(sources::clone_rootfs(path, is_slave).map_err(|error| source_error(step, error))?);
        Ok(())
    }

    pub(super) fn clone_source(&mut self, step: &Step, slot: usize) -> Result<(), RuntimeError> {
        let Some(plan) = self.plan.sources.get(slot) else { return Ok(()) };
        let user_ns = self.mapping(plan.id_maps.as_ref());
        let mount = sources::clone_bind(plan, user_ns).map_err(|error| source_error(step, error))?;
        sources::keep(&mut self.sources, slot, mount);
        Ok(())
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

fn source_error(step: &Step, error: SourceError) -> RuntimeError {
    match error {
        SourceError::Clone(error) => error.into(),
        SourceError::Change(detail, errno) => failed(step, detail, errno),
        SourceError::Locked { source, destination } => RuntimeError::Locked {
            source_path: source.display().to_string(),
            destination: destination.display().to_string(),
        },
    }
}
