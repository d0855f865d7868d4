//! One cgroup over all hierarchies of the host: making, opening, joining and removing it.

mod below;
mod create;
mod delete;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file::{Directory, write_once};
use crate::group_path::GroupPath;
use crate::layout::{Layout, Version};
use crate::systemd::{KernelLog, Unit, control_group_of, is_reference};
use crate::wait::Deadline;

pub(crate) use delete::child_names;

/// A group: one directory in every hierarchy, each open.
///
/// Dropping it closes the descriptors and leaves the group as it is.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) path: String,
    /// v1 directories with what the kernel calls their hierarchies.
    members: Vec<Member>,
    unified: Option<UnifiedMember>,
    /// The scope it is, where systemd manages it.
    pub(crate) unit: Option<Unit>,
    /// Of a scope made by this process.
    pub(crate) log: Option<KernelLog>,
}

#[derive(Debug)]
struct Member {
    directory: Directory,
    controllers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct UnifiedMember {
    pub(crate) directory: Directory,
    pub(crate) mount: PathBuf,
    /// Whether this is the only hierarchy, so everything is here.
    pub(crate) alone: bool,
}

impl Cgroup {
    /// Makes the group in every hierarchy, with its parents. An existing directory is taken as it is.
    ///
    /// A `path` that begins with `/` counts from the mounts' roots, another from where this process is. On v2 the controllers are
    /// enabled on the way down. On failure what was made is removed again.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is no group's, else what the kernel says of the directory that could not be made.
    pub fn create(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        create::create(layout, path)
    }

    /// Opens a group that exists; hierarchies that lack it are left out. One that systemd manages is found by what [`Cgroup::path`]
    /// said of it, or by `slice:prefix:name`.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        let scope = is_reference(path).then(|| control_group_of(path)).transpose()?;
        let checked = GroupPath::parse(scope.as_deref().unwrap_or(path))?;
        let unit = scope.as_deref().map(Unit::of_control_group);
        let mut group = Self { path: path.to_owned(), members: Vec::new(), unified: None, unit, log: None };
        for hierarchy in &layout.hierarchies {
            let full = full_path(&hierarchy.mount, &checked.below(&hierarchy.own));
            if let Some(directory) = open_existing(full)? {
                group.members.push(Member { directory, controllers: hierarchy.controllers.clone() });
            }
        }
        if let Some(unified) = &layout.unified {
            let full = full_path(&unified.mount, &checked.below(&unified.own));
            group.unified = open_existing(full)?.map(|directory| UnifiedMember {
                directory,
                mount: unified.mount.clone(),
                alone: layout.version == Version::V2,
            });
        }
        if group.members.is_empty() && group.unified.is_none() {
            return Err(CgroupError::NotFound { path: path.to_owned() });
        }
        Ok(group)
    }

    /// The path it was made with; of a scope `systemd:<control group>`. Either opens it again.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directories by controller (`cpu`, `name=systemd`; the v2 hierarchy has the empty name, as in `/proc/self/cgroup`).
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let v1 = self.members.iter().flat_map(|member| {
            member.controllers.iter().map(|controller| (controller.clone(), member.directory.path.clone()))
        });
        let v2 = self.unified.iter().map(|unified| (String::new(), unified.directory.path.clone()));
        v1.chain(v2).collect()
    }

    /// Descriptors (close-on-exec) of the v1 `tasks` files. The child that shall live here writes `0` to each **itself**,
    /// while it has one thread: attaching from outside costs a grace period of 8 to 12 ms.
    ///
    /// The v2 hierarchy is not among them: clone into [`Cgroup::cgroup_dir_fd`] instead.
    ///
    /// # Errors
    /// `NotFound` when somebody removed the group.
    pub fn attach_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let open = |member: &Member| {
            let directory = &member.directory;
            directory.open_write("tasks").map_err(|source| CgroupError::Open { path: directory.file("tasks"), source })
        };
        self.members.iter().map(open).collect()
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`: on v2 and hybrid hosts.
    pub fn cgroup_dir_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|unified| unified.directory.fd.as_fd())
    }

    /// The same for a caller who may not move processes everywhere: `None` as well when the way there leads over a group that is not his, as
    /// from a login session into what his systemd was delegated. [`Cgroup::attach_unified`] has his children moved then.
    ///
    /// # Spec
    /// cgroup-v2.rst, "Delegation Containment": the common ancestor's `cgroup.procs` has to be writable.
    pub fn cgroup_dir_fd_of_user(&self) -> Option<BorrowedFd<'_>> {
        let unified = self.unified.as_ref()?;
        let membership = crate::file::read_path(std::path::Path::new("/proc/self/cgroup")).ok()?;
        let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
        let own = unified.mount.join(own.trim_start_matches('/'));
        let common = unified.directory.path.ancestors().find(|path| own.starts_with(path))?;
        rustix::fs::access(common.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).ok()?;
        self.cgroup_dir_fd()
    }

    /// Moves a process into the v2 directory from outside, for a child that could not be cloned into it. Does nothing without a v2
    /// hierarchy. Into a scope systemd moves it for a caller who may not (a user's session is outside of what is delegated to him).
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn attach_unified(&self, pid: Pid) -> Result<(), CgroupError> {
        let Some(unified) = &self.unified else { return Ok(()) };
        match (attach(&unified.directory, pid), &self.unit) {
            (Err(CgroupError::Attach { source: Errno::ACCESS | Errno::PERM, .. }), Some(unit)) => {
                unit.attach(pid.as_raw_nonzero().get().unsigned_abs())
            }
            (outcome, _) => outcome,
        }
    }

    /// Moves a whole process into every hierarchy from outside. Slow on v1 (a grace period); for processes that cannot do it themselves.
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        self.members.iter().try_for_each(|member| attach(&member.directory, pid))?;
        self.attach_unified(pid)
    }

    /// Removes the group with everything below it; a group that is gone is fine. Waits while the kernel says EBUSY.
    ///
    /// # Errors
    /// `FailedPrecondition` (EBUSY) when processes are still in it at the end of the wait. All hierarchies are tried in any case.
    pub fn delete(&self, timeout: Duration) -> Result<(), CgroupError> {
        let mut deadline = Deadline::after(timeout);
        let unified = self.unified.as_ref().map(|unified| &unified.directory);
        let directories = self.members.iter().map(|member| &member.directory).chain(unified);
        // systemd first: what it made it removes itself.
        let mut first_error = self.unit.as_ref().map_or(Ok(()), |unit| unit.stop(timeout));
        let is_left = |directory: &&Directory| self.unit.is_none() || directory.path.exists();
        for directory in directories.filter(is_left) {
            let outcome = delete::delete_tree(&directory.path, &mut deadline);
            first_error = first_error.and(outcome);
        }
        first_error
    }

    /// Names of the groups directly below, in any hierarchy.
    pub(crate) fn child_names(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = Vec::new();
        for directory in self.directories() {
            names.extend(child_names(directory)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The directory that has a controller's files.
    pub(crate) fn home(&self, controller: Controller) -> Option<HomeDirectory<'_>> {
        let name = controller.v1_name();
        if let Some(member) = self.members.iter().find(|member| member.controllers.iter().any(|own| own == name)) {
            return Some(HomeDirectory::V1(&member.directory));
        }
        self.unified.as_ref().map(HomeDirectory::V2)
    }

    pub(crate) fn unified(&self) -> Option<&UnifiedMember> {
        self.unified.as_ref()
    }

    /// Every hierarchy's directory, the freezer's first: its list of processes is the one nobody can leave unseen.
    pub(crate) fn directories(&self) -> Vec<&Directory> {
        let freezer = |member: &&Member| member.controllers.iter().any(|name| name == Controller::Freezer.v1_name());
        let v1 = self.members.iter().filter(freezer).chain(self.members.iter().filter(|member| !freezer(member)));
        v1.map(|member| &member.directory).chain(self.unified.as_ref().map(|unified| &unified.directory)).collect()
    }
}

/// Where a controller's files are.
#[derive(Clone, Copy)]
pub(crate) enum HomeDirectory<'a> {
    V1(&'a Directory),
    V2(&'a UnifiedMember),
}

impl<'a> HomeDirectory<'a> {
    pub(crate) fn directory(self) -> &'a Directory {
        match self {
            Self::V1(directory) => directory,
            Self::V2(unified) => &unified.directory,
        }
    }

    /// Refuses a memory limit below what is in use.
    pub(crate) fn above_usage(self, bytes: u64) -> Result<(), CgroupError> {
        let usage = self.directory().read_number("memory.current").unwrap_or(0);
        if usage > bytes {
            let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
            return Err(CgroupError::LimitBelowUsage { limit, usage });
        }
        Ok(())
    }
}

fn attach(directory: &Directory, pid: Pid) -> Result<(), CgroupError> {
    let number = pid.as_raw_nonzero().get();
    directory
        .open_write("cgroup.procs")
        .and_then(|fd| write_once(fd, &number.to_string()))
        .map_err(|source| CgroupError::Attach { pid: number, path: directory.path.clone(), source })
}

/// `below` begins with `/`, so `Path::join` would forget the mount.
fn full_path(mount: &std::path::Path, below: &str) -> PathBuf {
    let mut full = mount.as_os_str().to_owned();
    if full == "/" {
        full.clear();
    }
    full.push(below);
    full.into()
}

fn open_existing(path: PathBuf) -> Result<Option<Directory>, CgroupError> {
    match Directory::open(path.clone()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(source) => Err(CgroupError::Open { path, source }),
    }
}
