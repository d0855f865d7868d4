//! Which driver makes the container's cgroup, and how a scope of systemd is kept alive until init lives in it.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_cgroup::{Cgroup, CgroupError, Instance, Layout, Resources, ScopeRequest, Setting, UnitName};
use berth_oci::runtime::Spec;
use berth_sys::clone::{Child, CloneArgs, clone_child};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use crate::create::kill_and_reap;
use crate::error::RuntimeError;

/// For systemd to start a scope. It may be busy with a reload, or with a thousand other units.
const SCOPE_TIMEOUT: Duration = Duration::from_secs(60);
const FIELD: &str = "linux.cgroupsPath";

/// Who makes cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// We do, as directories.
    #[default]
    Cgroupfs,
    /// A systemd does, as transient scopes.
    Systemd(Instance),
}

impl CgroupDriver {
    /// The group a container gets: what the spec says, else one named after it.
    ///
    /// # Errors
    /// `InvalidArgument` for a path of the other driver: the two must not be mixed on one host.
    pub fn path_of(&self, spec: &Spec, id: &str) -> Result<String, RuntimeError> {
        let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
        let not_text = || RuntimeError::Spec { field: FIELD, problem: "is not text".to_owned() };
        let asked = asked.map(|path| path.to_str().ok_or_else(not_text)).transpose()?;
        let asked = asked.filter(|path| !path.is_empty());
        match (self, asked) {
            (Self::Cgroupfs, None) => Ok(format!("/berth/{id}")),
            (Self::Cgroupfs, Some(path)) if !path.starts_with('/') && path.split(':').count() == 3 => {
                let problem =
                    format!("{path} is of the systemd cgroup driver's form, but the cgroupfs driver is asked");
                Err(RuntimeError::Spec { field: FIELD, problem })
            }
            (Self::Cgroupfs, Some(path)) => Ok(path.to_owned()),
            (Self::Systemd(_), None) => Ok(format!(":berth:{id}")),
            (Self::Systemd(instance), Some(path)) => {
                let wrong = |error: CgroupError| RuntimeError::Spec { field: FIELD, problem: error.to_string() };
                UnitName::parse(path, instance).map_err(wrong)?;
                Ok(path.to_owned())
            }
        }
    }
}

/// A process that does nothing but be there: a scope without one ends. Our end of the pipe holds it.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    _hold: Option<OwnedFd>,
    /// What the keeper itself would be in the way of.
    later: Vec<Setting>,
}

/// Makes the scope with all its limits.
pub(crate) fn start_scope(
    layout: &Layout,
    instance: &Instance,
    path: &str,
    id: &str,
    resources: &Resources,
) -> Result<(Cgroup, Keeper), RuntimeError> {
    let cgroup = |source| RuntimeError::Cgroup { what: "create", source: Box::new(source) };
    let name = UnitName::parse(path, instance).map_err(cgroup)?;
    let (later, settings) = berth_cgroup::plan(layout, resources)?.into_iter().partition(leaves_no_room);
    let keeper = Keeper::start(later)
        .map_err(|source| RuntimeError::Kernel { what: "start a process for the scope", source })?;
    let pid = i32::try_from(keeper.child.pid).ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or(RuntimeError::Kernel { what: "start a process for the scope", source: rustix::io::Errno::SRCH })?;
    let request = ScopeRequest {
        instance,
        name: &name,
        description: &format!("container {id}"),
        pid,
        settings: &settings,
        timeout: SCOPE_TIMEOUT,
    };
    match Cgroup::start_scope(layout, &request) {
        Ok(group) => Ok((group, keeper)),
        Err(error) => {
            keeper.end();
            Err(cgroup(error))
        }
    }
}

/// Whether init could not be made beside the keeper.
fn leaves_no_room(setting: &Setting) -> bool {
    setting.file == "pids.max" && setting.value == berth_cgroup::Value::Text("1".to_owned())
}

impl Keeper {
    fn start(later: Vec<Setting>) -> Result<Self, rustix::io::Errno> {
        let (waiting, hold) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut hold = Some(hold);
        let child = clone_child(&CloneArgs::default(), || {
            // Its own copy of our end would keep it from ever seeing ours closed, should we die.
            drop(hold.take());
            let _end = std::fs::File::from(waiting).read(&mut [0]);
            0
        })?;
        Ok(Self { child, _hold: hold, later })
    }

    /// Lets it go, now that init is there.
    pub(crate) fn release(self, group: &Cgroup) -> Result<(), RuntimeError> {
        let later = if self.later.is_empty() { Ok(()) } else { group.apply(&self.later) };
        self.end();
        later.map_err(|source| RuntimeError::Cgroup { what: "limit", source: Box::new(source) })
    }

    pub(crate) fn end(self) {
        kill_and_reap(&self.child.pidfd);
    }
}
