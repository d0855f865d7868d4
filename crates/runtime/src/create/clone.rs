//! How a process of a container comes to be: clone3 with the caller's children in the right PID and user namespace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use berth_cgroup::{Cgroup, CgroupError};
use berth_rootfs::mounts::new_filesystem;
use berth_rootfs::options::MountOptions;
use berth_sys::clone::{Child, CloneArgs, clone_child, namespace_bits};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid};
use rustix::thread::LinkNameSpaceType;

use super::{Creation, INIT_TIMEOUT, KILL_TIMEOUT, errno_of, failed, kill_and_reap};
use crate::channel::{Channel, Message, Report, wait_readable};
use crate::error::RuntimeError;
use crate::init::{self, CgroupView, InitContext, Scratch};
use crate::lend::Lent;
use crate::namespaces::Namespace;
use crate::options::Rights;
use crate::plan::Step;

impl Creation<'_> {
    /// Everything init needs goes into its context before the clone; afterwards this process drops its copy.
    pub(super) fn clone_init(&mut self, step: &Step) -> Result<(), RuntimeError> {
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
        let is_ordinary = self.options.tuning.rights == Rights::Ordinary;
        let directory = group.and_then(if is_ordinary { Cgroup::cgroup_dir_fd_of_user } else { Cgroup::cgroup_dir_fd });
        let args = CloneArgs {
            namespaces: namespace_bits(self.plan.namespaces.clone_flags()),
            cgroup: directory,
            ..CloneArgs::default()
        };
        let is_outside = directory.is_none();
        let child = clone_into_pid_ns(&args, pid_ns.as_ref(), self.user_ns.as_ref(), context);
        let back = lent.leave();
        let child = child.map_err(kernel)?;
        self.state.pid = child.pid;
        self.child = Some(child);
        if is_ordinary && is_outside {
            // It waits for its mappings, and looks at no cgroup before.
            attach_from_outside(group, self.state.pid).map_err(cgroup)?;
        }
        back.map_err(|errno| failed(step, "cannot go back to the caller's own namespaces", errno))?;
        self.channel = Some(ours);
        Ok(())
    }
}

/// Has a child that could not be born there moved into its group.
pub(crate) fn attach_from_outside(group: Option<&Cgroup>, pid: u32) -> Result<(), CgroupError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.and_then(|pid| group.map(|group| group.attach_unified(pid))).unwrap_or(Ok(()))
}

/// The number of a process in the caller's PID namespace (who cloned it may be in another one).
fn pid_of(pidfd: &OwnedFd) -> Result<u32, Errno> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).map_err(|error| errno_of(&error))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or(Errno::SRCH)
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
