//! Steps about the mount namespace: isolation, the root file system, the spec's mounts, entering the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_rootfs::RootDir;
use berth_rootfs::mounts::{
    TargetKind, attach, check_not_over_proc, clone_tree, clone_tree_fd, lexical, mount_target, new_filesystem,
    ordinary_directory, set_attributes, set_read_only,
};
use berth_rootfs::options::MountOptions;
use berth_sys::mount_attr::{MountAttr, mount_setattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{Failure, InitContext, unshare};
use crate::channel::Message;
use crate::namespaces::Namespace;
use crate::plan::{MountPlan, MountSource, RootEntry};
use crate::procfs::Procfs;

impl InitContext<'_> {
    pub(super) fn isolate_mounts(&mut self, propagation: MountPropagationFlags) -> Result<(), Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        mount_setattr(root.as_fd(), true, &MountAttr { propagation, ..MountAttr::default() })?;
        self.scratch.host_root = Some(root);
        Ok(())
    }

    /// On top of `/` of this namespace where the place cannot be reached (by root of a user namespace): that one always can.
    pub(super) fn attach_rootfs(&mut self, place: &Path) -> Result<(), Failure> {
        let rootfs = self.rootfs.take().ok_or_else(|| Failure::new("it was not mounted", Errno::NOENT))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        if rustix::mount::move_mount(&rootfs, "", rustix::fs::CWD, place, flags).is_err() {
            rustix::mount::move_mount(&rootfs, "", rustix::fs::CWD, "/", flags)?;
        }
        self.scratch.root = Some(RootDir::new(rootfs));
        Ok(())
    }

    pub(super) fn mount(&mut self, plan: &MountPlan) -> Result<(), Failure> {
        match &plan.source {
            MountSource::Bind { slot, .. } => {
                let mount = self.sources.get_mut(*slot).and_then(Option::take);
                let mount = mount.ok_or_else(|| Failure::new("its source was not opened", Errno::NOENT))?;
                self.mount_bind(plan, &mount)
            }
            MountSource::Inside { path, recursive, slot } => {
                let source = self.root()?.resolve(path)?;
                let mut mount = clone_tree_fd(source.as_fd(), *recursive)?;
                if plan.is_id_mapped() {
                    mount = self.have_id_mapped(*slot, mount)?;
                }
                set_attributes(mount.as_fd(), &plan.options_of_bind())?;
                self.mount_bind(plan, &mount)
            }
            MountSource::Filesystem { fstype, source } => self.mount_filesystem(plan, fstype, source.as_deref()),
            MountSource::Cgroup => self.mount_cgroup(plan),
            MountSource::Remount => self.remount(plan),
        }
    }

    /// By the caller: who is root only in a user namespace has no right to map another one's ids.
    fn have_id_mapped(&self, slot: usize, mount: OwnedFd) -> Result<OwnedFd, Failure> {
        let slot = u32::try_from(slot).map_err(|_| Failure::from(Errno::INVAL))?;
        let question = Message::AwaitsIdMap { slot, mount };
        self.await_answer(&question)?;
        match question {
            Message::AwaitsIdMap { mount, .. } => Ok(mount),
            _ => Err(Failure::from(Errno::INVAL)),
        }
    }

    fn mount_bind(&self, plan: &MountPlan, mount: &OwnedFd) -> Result<(), Failure> {
        let stat = rustix::fs::statat(mount, "", AtFlags::EMPTY_PATH)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => TargetKind::Directory,
            _ => TargetKind::File,
        };
        let target = mount_target(self.root()?, &plan.destination, kind)?;
        check_not_over_proc(&plan.destination, target.as_fd(), mount.as_fd())?;
        Ok(attach(mount.as_fd(), target.as_fd())?)
    }

    /// The descriptor is on the mount at the target; a target that is none is refused by the kernel.
    fn remount(&self, plan: &MountPlan) -> Result<(), Failure> {
        let target = self.root()?.resolve(&plan.destination)?;
        Ok(berth_rootfs::mounts::remount(target.as_fd(), &plan.destination, &plan.options)?)
    }

    fn mount_filesystem(&mut self, plan: &MountPlan, fstype: &str, source: Option<&Path>) -> Result<(), Failure> {
        let root = self.root()?;
        let is_made = fstype == "tmpfs" && root.resolve(&plan.destination).is_err();
        let is_kernel_view = fstype == "proc" || fstype == "sysfs";
        let target = if is_kernel_view {
            ordinary_directory(root, &plan.destination, fstype)?
        } else {
            mount_target(root, &plan.destination, TargetKind::Directory)?
        };
        let mount = match new_filesystem(fstype, source, &filesystem_options(plan, fstype, target.as_fd(), is_made)?) {
            Ok(mount) => mount,
            // A user namespace without its own network namespace may not mount sysfs; the caller's
            // mount of it is used, else the host's is bound, as it is.
            Err(error)
                if fstype == "sysfs"
                    && error.errno() == Errno::PERM
                    && self.plan.namespaces.is_private(Namespace::User) =>
            {
                let mount = match self.scratch.sysfs.take() {
                    Some(mount) => mount,
                    None => clone_tree(Path::new("/sys"), true)?,
                };
                set_attributes(mount.as_fd(), &plan.options)?;
                mount
            }
            Err(error) => return Err(error.into()),
        };
        if let (Some(label), "mqueue") = (&self.plan.mount_label, fstype) {
            // It takes no context as an option.
            let directory = rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(&directory, "security.selinux", label.as_bytes(), flags)
                .map_err(|errno| Failure::new("cannot label it", errno))?;
        }
        if plan.options.copy_up {
            berth_rootfs::copy_up::copy_up(target.as_fd(), mount.as_fd())?;
        }
        if fstype == "tmpfs" && plan.options.copy_up {
            set_attributes(mount.as_fd(), &plan.options)?;
        }
        check_not_over_proc(&plan.destination, target.as_fd(), mount.as_fd())?;
        attach(mount.as_fd(), target.as_fd())?;
        self.set_propagation(mount.as_fd(), &plan.options)?;
        self.remember(plan, fstype, mount);
        Ok(())
    }

    /// Later steps write to exactly these mounts, whatever lies over their paths by then.
    fn remember(&mut self, plan: &MountPlan, fstype: &str, mount: OwnedFd) {
        let destination = lexical(&plan.destination);
        if fstype == "proc" && destination == Path::new("/proc") {
            self.scratch.proc_mount = Some(mount);
        } else if fstype == "devpts" && destination == Path::new("/dev/pts") {
            self.scratch.devpts = Some(mount);
        }
    }

    fn set_propagation(&self, mount: BorrowedFd<'_>, options: &MountOptions) -> Result<(), Failure> {
        for (propagation, recursive) in &options.propagation {
            let change = MountAttr { propagation: *propagation, ..MountAttr::default() };
            mount_setattr(mount, *recursive, &change)?;
        }
        Ok(())
    }

    pub(super) fn leave_host_mounts(&mut self) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let proc = Procfs::open().map_err(|errno| Failure::new("/proc is not procfs", errno))?;
        self.scratch.host_mounts = Some(rustix::fs::openat(proc.as_fd(), "self/ns/mnt", flags, Mode::empty())?);
        unshare(UnshareFlags::NEWNS)
    }

    /// See [`RootEntry::AmongHostMounts`].
    fn enter_among_host_mounts(&mut self) -> Result<(), Failure> {
        let host = self.scratch.host_mounts.take().ok_or_else(|| Failure::from(Errno::INVAL))?;
        let root = clone_tree_fd(self.root()?.as_fd(), true)?;
        rustix::thread::move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Mount))?;
        stand_in(root.as_fd())?;
        self.scratch.root = Some(RootDir::new(root));
        Ok(())
    }

    pub(super) fn enter_root(&mut self, entry: RootEntry) -> Result<(), Failure> {
        let host_root = self.scratch.host_root.take().ok_or_else(|| Failure::from(Errno::INVAL))?;
        if entry == RootEntry::AmongHostMounts {
            return self.enter_among_host_mounts();
        }
        rustix::process::fchdir(self.root()?.as_fd())?;
        if entry == RootEntry::Chroot {
            hide_kernel_views(&host_root)?;
            rustix::process::fchdir(self.root()?.as_fd())?;
            return Ok(rustix::process::chroot(".")?);
        }
        // The old root lands on top of the new one (pivot_root(2), "pivot_root(".", ".")") and is taken off again.
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(&host_root)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }

    pub(super) fn read_only_root(&self) -> Result<(), Failure> {
        Ok(set_read_only(self.root()?.as_fd(), false)?)
    }

    pub(super) fn share_root(&self, propagation: MountPropagationFlags, recursive: bool) -> Result<(), Failure> {
        let change = MountAttr { propagation, ..MountAttr::default() };
        Ok(mount_setattr(self.root()?.as_fd(), recursive, &change)?)
    }

    /// Made where it is missing; what cannot be made is reported when it is entered.
    pub(super) fn make_cwd(&self) -> Result<(), Failure> {
        match self.root()?.create_dir_all(&self.plan.process.cwd, Mode::from_raw_mode(0o755)) {
            Ok(_) | Err(berth_rootfs::RootError { source: Errno::ROFS | Errno::ACCESS | Errno::NOTDIR, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes what a descriptor is on the root and the working directory.
pub(super) fn stand_in(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// The host's procfs and sysfs stay in this namespace below a root that was not pivoted: while one is fully visible, a user namespace
/// inside may mount another without the container's masks (mount_too_revealing() of fs/namespace.c).
fn hide_kernel_views(host_root: &OwnedFd) -> Result<(), Failure> {
    let unmount = |path: &str| {
        rustix::process::fchdir(host_root)?;
        rustix::mount::unmount(path, UnmountFlags::DETACH)
    };
    for path in ["proc", "sys"] {
        loop {
            match unmount(path) {
                Ok(()) => {}
                // Not a mount (any more), or not there.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(errno) => return Err(Failure::new(format!("cannot hide the host's /{path}"), errno)),
            }
        }
    }
    Ok(())
}

/// A tmpfs takes over the mode of the directory it hides, unless told otherwise; over one that was made for it, it has its own.
fn filesystem_options(
    plan: &MountPlan,
    fstype: &str,
    target: BorrowedFd<'_>,
    is_made: bool,
) -> Result<MountOptions, Failure> {
    let mut options = plan.options.clone();
    if fstype != "tmpfs" {
        return Ok(options);
    }
    if options.value("mode").is_none() && !is_made {
        let stat = rustix::fs::statat(target, "", AtFlags::EMPTY_PATH)?;
        options.data.push(("mode".to_owned(), Some(format!("{:o}", stat.st_mode & 0o7777))));
    }
    if options.copy_up {
        // Filled first, then as read-only as asked.
        options.top = berth_rootfs::options::AttributeChange::default();
        options.tree = berth_rootfs::options::AttributeChange::default();
    }
    Ok(options)
}
