//! Steps that put the process where it belongs: cgroup, namespaces, clocks, session, terminal, kernel parameters.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use berth_rootfs::RootDir;
use berth_rootfs::devices::open_multiplexer;
use berth_rootfs::mounts::{TargetKind, attach, clone_tree_fd, mount_target};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::termios::{OptionalActions, OutputModes, Winsize};
use rustix::thread::{CpuSet, LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use super::mounts::stand_in;
use super::{Failure, InitContext, unshare};
use crate::channel::Message;
use crate::labels::Label;
use crate::namespaces::Namespace;
use crate::options::{Rights, Stdio};
use crate::plan::Keyring;
use crate::procfs::Procfs;

impl InitContext<'_> {
    pub(super) fn await_mappings(&self) -> Result<(), Failure> {
        self.channel.send(&Message::AwaitsMappings)?;
        self.expect_go()?;
        root_of_user_ns(self.rights)
    }

    /// Writing `0` moves the writer itself, which skips the wait that attaching somebody else costs.
    pub(super) fn enter_cgroup(&mut self) -> Result<(), Failure> {
        for fd in self.cgroup_fds.drain(..) {
            rustix::io::retry_on_intr(|| rustix::io::write(&fd, b"0"))?;
        }
        Ok(())
    }

    pub(super) fn join_namespace(&mut self, kind: Namespace) -> Result<(), Failure> {
        if let Some((init, flags)) = self.join.take() {
            if !flags.is_empty() {
                let types = ThreadNameSpaceType::from_bits_retain(flags.bits());
                rustix::thread::move_into_thread_name_spaces(init.as_fd(), types)?;
            }
            if flags.contains(UnshareFlags::NEWUSER) {
                root_of_user_ns(self.rights)?;
            }
            if flags.contains(UnshareFlags::NEWNS) {
                self.scratch.root = Some(own_root()?);
            } else if let Some(root) = self.rootfs.take() {
                stand_in(root.as_fd())?;
                self.scratch.root = Some(RootDir::new(root));
            }
            return Ok(());
        }
        let found = self.namespaces.iter().position(|(opened, _)| *opened == kind);
        if found.is_none() && self.plan.namespaces.is_private(Namespace::User) {
            return Ok(()); // lent by the caller, or joined by who cloned us: born inside
        }
        let index = found.ok_or_else(|| Failure::new("it was not opened", Errno::NOENT))?;
        let (_, fd) = self.namespaces.swap_remove(index);
        let kind = match kind {
            Namespace::User => LinkNameSpaceType::User,
            Namespace::Pid => LinkNameSpaceType::ProcessID,
            Namespace::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Namespace::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Namespace::Network => LinkNameSpaceType::Network,
            Namespace::Cgroup => LinkNameSpaceType::ControlGroup,
            Namespace::Time => LinkNameSpaceType::Time,
            Namespace::Mount => LinkNameSpaceType::Mount,
        };
        Ok(rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind))?)
    }

    /// A pty of the container's own devpts; the slave comes from the master, never from a path (CVE-2025-52565).
    pub(super) fn open_console(&mut self) -> Result<(), Failure> {
        let Stdio::Terminal { rows, columns, keeps_newlines } = self.stdio else {
            return Err(Failure::new("a terminal is wanted but the streams are files", Errno::INVAL));
        };
        let is_exec = self.scratch.devpts.is_none();
        let devpts = match self.scratch.devpts.take() {
            Some(devpts) => devpts,
            None => self.root()?.resolve(Path::new("/dev/pts"))?,
        };
        let master = open_multiplexer(devpts.as_fd())
            .map_err(|errno| Failure::new("the container has no usable devpts at /dev/pts", errno))?;
        berth_sys::tty::unlock_slave(&master)?;
        let slave = berth_sys::tty::open_slave(&master)?;
        if rows > 0 && columns > 0 {
            rustix::termios::tcsetwinsize(
                &master,
                Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
            )?;
        }
        if keeps_newlines {
            let mut modes = rustix::termios::tcgetattr(&slave)?;
            modes.output_modes.remove(OutputModes::ONLCR);
            rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
        }
        if !is_exec {
            let target = mount_target(self.root()?, Path::new("/dev/console"), TargetKind::File)?;
            let mount = clone_tree_fd(slave.as_fd(), false)?;
            attach(mount.as_fd(), target.as_fd())?;
        }
        rustix::process::ioctl_tiocsctty(&slave)?;
        // At once, not only before exec: whoever reads what its runtime prints waits for all writers to be gone.
        for number in 0..3 {
            berth_sys::process::place_fd(&slave, number)?;
        }
        self.scratch.console = Some(slave);
        Ok(self.channel.send(&Message::Console(master))?)
    }

    /// Through the container's own procfs mount, or the host's, on the descriptor: no link, no other mount in the way
    /// (CVE-2025-52881).
    pub(super) fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Failure> {
        let not_proc = |errno| Failure::new("/proc is not procfs", errno);
        let proc = match &self.scratch.proc_mount {
            Some(mount) => {
                let copy = mount.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Procfs::verified(copy).map_err(not_proc)?
            }
            None => Procfs::open().map_err(not_proc)?,
        };
        Ok(proc.write(&format!("sys/{key}"), value.as_bytes())?)
    }
}

/// Root of the user namespace just entered. Changing ids may make a process dumpable again (fs.suid_dumpable).
pub(crate) fn become_root(rights: Rights) -> Result<(), Errno> {
    match rustix::thread::set_thread_groups(&[]) {
        // Who may not give himself groups may not drop them either (user_namespaces(7), setgroups).
        Err(Errno::PERM) if rights == Rights::Ordinary => {}
        other => other?,
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// `EINVAL` is the kernel's word for an id without a mapping.
fn root_of_user_ns(rights: Rights) -> Result<(), Failure> {
    become_root(rights).map_err(|errno| Failure::new("cannot become user and group 0; are they mapped?", errno))
}

/// The root of the mount namespace just entered, which setns(2) made ours.
fn own_root() -> Result<RootDir, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(RootDir::new(rustix::fs::open("/", flags, Mode::empty())?))
}

/// The offsets can be written only while nobody lives in the namespace. Exec moves us in (Linux 6.1).
pub(super) fn offset_clocks(offsets: &str) -> Result<(), Failure> {
    unshare(UnshareFlags::NEWTIME)?;
    if offsets.is_empty() {
        return Ok(());
    }
    let proc = Procfs::open().map_err(|errno| Failure::new("/proc is not procfs", errno))?;
    Ok(proc.write("self/timens_offsets", offsets.as_bytes())?)
}

pub(super) fn set_affinity(cpus: &[usize]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
}

/// The kernel keeps of all CPUs those of the cgroup. Where it is not allowed, the caller's have to do, as in runc.
pub(super) fn reset_affinity() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    let _as_the_caller = rustix::thread::sched_setaffinity(None, &all);
}

/// A kernel without keys has no keyring to leave.
pub(super) fn join_keyring(name: &str, keyring: &Keyring) -> Result<(), Failure> {
    let name = CString::new(name).map_err(|_| Failure::from(Errno::INVAL))?;
    if let Some(label) = &keyring.label {
        label.label_keys().map_err(|errno| Failure::new("cannot label the keyring", errno))?;
    }
    let joined = berth_sys::process::join_session_keyring(&name, keyring.is_new);
    if keyring.label.is_some() {
        // Keys that the program makes are its own matter.
        Label::unlabel_keys().map_err(|errno| Failure::new("cannot stop labelling keys", errno))?;
    }
    match joined {
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
