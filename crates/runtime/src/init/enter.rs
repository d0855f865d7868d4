//! Steps that put the process where it belongs: cgroup, namespaces, clocks, session, terminal, kernel parameters.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use berth_rootfs::RootDir;
use berth_rootfs::devices::open_multiplexer;
use berth_rootfs::mounts::{PROC_MAGIC, TargetKind, attach, clone_tree_fd, magic, mount_target};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::termios::Winsize;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use super::{Failure, InitContext, unshare};
use crate::channel::Message;
use crate::namespaces::Namespace;
use crate::options::Stdio;

impl InitContext<'_> {
    pub(super) fn await_mappings(&self) -> Result<(), Failure> {
        self.channel.send(&Message::AwaitsMappings)?;
        self.expect_go()?;
        become_root()
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
            let types = ThreadNameSpaceType::from_bits_retain(flags.bits());
            rustix::thread::move_into_thread_name_spaces(init.as_fd(), types)?;
            if flags.contains(UnshareFlags::NEWUSER) {
                become_root()?;
            }
            if flags.contains(UnshareFlags::NEWNS) {
                self.scratch.root = Some(own_root()?);
            }
            return Ok(());
        }
        let found = self.namespaces.iter().position(|(opened, _)| *opened == kind);
        if found.is_none() && self.plan.namespaces.is_new(Namespace::User) {
            return Ok(()); // lent by the caller: born inside
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
        let Stdio::Terminal { rows, columns } = self.stdio else {
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
        if !is_exec {
            let target = mount_target(self.root()?, Path::new("/dev/console"), TargetKind::File)?;
            let mount = clone_tree_fd(slave.as_fd(), false)?;
            attach(mount.as_fd(), target.as_fd())?;
        }
        rustix::process::ioctl_tiocsctty(&slave)?;
        self.scratch.console = Some(slave);
        Ok(self.channel.send(&Message::Console(master))?)
    }

    /// Through the container's own procfs mount, or the host's, on the descriptor: no link, no other mount in the way
    /// (CVE-2025-52881).
    pub(super) fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Failure> {
        let host_proc;
        let proc_mount = match &self.scratch.proc_mount {
            Some(fd) => fd.as_fd(),
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                host_proc = rustix::fs::open("/proc", flags, Mode::empty())?;
                host_proc.as_fd()
            }
        };
        if magic(proc_mount)? != PROC_MAGIC {
            return Err(Failure::new("/proc is not procfs", Errno::INVAL));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = format!("sys/{key}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(proc_mount, path, flags, Mode::empty(), resolve)?;
        let written = rustix::io::write(&file, value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(Failure::new("the value was cut", Errno::IO)) }
    }
}

/// Root of the user namespace just entered.
fn become_root() -> Result<(), Failure> {
    rustix::thread::set_thread_groups(&[]).map_err(|errno| Failure::new("cannot drop groups", errno))?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .map_err(|errno| Failure::new("group 0 has no mapping", errno))?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .map_err(|errno| Failure::new("user 0 has no mapping", errno))
}

/// The root of the mount namespace just entered, which setns(2) made ours.
fn own_root() -> Result<RootDir, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(RootDir::new(rustix::fs::open("/", flags, Mode::empty())?))
}

/// The offsets can be written only while nobody lives in the namespace; exec moves us in (Linux 6.1).
pub(super) fn offset_clocks(offsets: &str) -> Result<(), Failure> {
    unshare(UnshareFlags::NEWTIME)?;
    if offsets.is_empty() {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/self/timens_offsets", flags, Mode::empty())?;
    if magic(&file)? != PROC_MAGIC {
        return Err(Failure::new("/proc is not procfs", Errno::INVAL));
    }
    Ok(rustix::io::write(&file, offsets.as_bytes()).map(drop)?)
}

/// A kernel without keys has no keyring to leave.
pub(super) fn join_keyring(name: &str) -> Result<(), Failure> {
    let name = CString::new(name).map_err(|_| Failure::from(Errno::INVAL))?;
    match berth_sys::process::join_session_keyring(&name) {
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
