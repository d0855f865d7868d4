//! The criu process: started with a socket and the descriptors a request speaks of, in a mount namespace of its own for a restore.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use berth_rootfs::mounts::attach;
use berth_sys::clone::{Child, CloneArgs, clone_child, namespace_bits};
use berth_sys::mount_attr::{MountAttr, mount_setattr};
use berth_sys::process::{StringArray, execve, place_fd, reset_signals};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::rpc::{self, Answer, Message};
use crate::channel::wait_readable;
use crate::create::kill_and_reap;
use crate::error::RuntimeError;
use crate::meanwhile::Meanwhile;

/// For an answer: memory of any size is written or read meanwhile.
const TIMEOUT: Duration = Duration::from_secs(600);
const ANSWER_MAX: usize = 64 << 10;
const NOTIFY: u64 = 6;
/// The socket's number in criu, and the first of the passed descriptors.
const SOCKET: u16 = 3;

/// Where criu restores. The root file system is a mount of its own at a path whose parent nothing covers, as criu demands.
#[derive(Debug)]
pub(super) struct RestorePlace<'a> {
    /// Detached, private.
    pub(super) tree: &'a OwnedFd,
    pub(super) place: &'a Path,
    pub(super) group: Option<BorrowedFd<'a>>,
    /// `tasks` files of the cgroups to enter.
    pub(super) groups: &'a [OwnedFd],
    /// In place of our own, which the restored processes get otherwise.
    pub(super) streams: Option<[BorrowedFd<'a>; 3]>,
}

#[derive(Debug)]
pub(super) struct Worker {
    socket: OwnedFd,
    child: Child,
    pub(super) terminal: Option<OwnedFd>,
}

impl Worker {
    /// Starts `criu swrk 3` with these descriptors from 4 on.
    pub(super) fn start(
        program: &Path,
        passed: &[BorrowedFd<'_>],
        restore: Option<&RestorePlace<'_>>,
    ) -> Result<Self, RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "start criu", source };
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(kernel)?;
        let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| kernel(Errno::INVAL))?;
        let words = [c"criu", c"swrk", c"3"].map(std::borrow::ToOwned::to_owned).to_vec();
        let (words, environment) =
            (StringArray::new(words), StringArray::new(vec![c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]));
        let namespaces = if restore.is_some() { namespace_bits(UnshareFlags::NEWNS) } else { 0 };
        let group = restore.and_then(|place| place.group);
        let args = CloneArgs { namespaces, cgroup: group, ..CloneArgs::default() };
        let child = clone_child(&args, || {
            let streams = restore.and_then(|place| place.streams);
            let ready = reset_signals()
                .and_then(|()| restore.map_or(Ok(()), RestorePlace::enter))
                .and_then(|()| place_all(&theirs, passed, streams));
            // Whoever waits for the answer sees the socket close.
            u8::from(ready.is_err() || execve(&path, &words, &environment) != Errno::NOENT)
        })
        .map_err(kernel)?;
        Ok(Self { socket, child, terminal: None })
    }

    /// Sends a request and waits for its answer; `at_stage` is called with each stage criu notifies of, and its error ends the work.
    pub(super) fn ask(
        &mut self,
        request: &Message,
        meanwhile: Meanwhile,
        mut at_stage: impl FnMut(&str, u32) -> Result<(), RuntimeError>,
    ) -> Result<Answer, RuntimeError> {
        let gone = |source| RuntimeError::Kernel { what: "speak to criu; is the program there", source };
        rpc::send(&self.socket, request).map_err(gone)?;
        let mut buffer = vec![0; ANSWER_MAX];
        loop {
            meanwhile.wait(|| wait_readable(self.socket.as_fd(), TIMEOUT)).map_err(gone)?;
            let length = self.receive(&mut buffer).map_err(gone)?;
            let packet = buffer.get(..length).filter(|packet| !packet.is_empty()).ok_or(gone(Errno::PIPE))?;
            let answer = Answer::parse(packet).ok_or(gone(Errno::BADMSG))?;
            let Some((stage, pid)) = &answer.notify else { return Ok(answer) };
            let outcome = at_stage(stage, *pid);
            let mut go_on = Message::default();
            go_on.number(1, NOTIFY).switch(3, outcome.is_ok());
            rpc::send(&self.socket, &go_on).map_err(gone)?;
            outcome?;
        }
    }
}

impl Worker {
    /// One packet. A descriptor comes with the notification `orphan-pts-master`: the master of a restored terminal.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(master) = fds.next()
            {
                self.terminal = Some(master);
            }
        }
        Ok(received.bytes)
    }
}

impl Drop for Worker {
    /// After its answer it has nothing left to do; before, it must not go on.
    fn drop(&mut self) {
        kill_and_reap(&self.child.pidfd);
    }
}

impl RestorePlace<'_> {
    fn enter(&self) -> Result<(), Errno> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let private = MountAttr { propagation: MountPropagationFlags::PRIVATE, ..MountAttr::default() };
        mount_setattr(root.as_fd(), true, &private)?;
        let place = rustix::fs::open(self.place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        attach(self.tree.as_fd(), place.as_fd())?;
        enter_groups(self.groups)
    }
}

fn enter_groups(groups: &[OwnedFd]) -> Result<(), Errno> {
    groups.iter().try_for_each(|group| rustix::io::write(group, b"0").map(drop))
}

/// Copies above all numbers first, so that placing one cannot overwrite another.
fn place_all(socket: &OwnedFd, passed: &[BorrowedFd<'_>], streams: Option<[BorrowedFd<'_>; 3]>) -> Result<(), Errno> {
    let above = i32::from(SOCKET) + 64;
    let first = if streams.is_some() { 0 } else { SOCKET };
    let mut copies = Vec::new();
    let streams = streams.into_iter().flatten();
    for fd in streams.chain([socket.as_fd()]).chain(passed.iter().copied()) {
        copies.push(rustix::io::fcntl_dupfd_cloexec(fd, above)?);
    }
    (first..).zip(&copies).try_for_each(|(number, copy)| place_fd(copy, number))
}

pub(super) fn file_error(what: &'static str, path: &Path, errno: Errno) -> RuntimeError {
    RuntimeError::File { what, path: path.display().to_string(), source: errno.into() }
}

/// A directory of ours for images or logs, made when it is missing.
pub(super) fn directory(path: &Path) -> Result<OwnedFd, RuntimeError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(file_error("make", path, errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| file_error("open", path, errno))
}

pub(super) fn open(path: &Path) -> Result<OwnedFd, RuntimeError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| file_error("open", path, errno))
}

/// A small file of the images, never through a link: they may come from elsewhere.
pub(super) fn write(images: &OwnedFd, name: &str, content: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(images, name, flags, Mode::from_raw_mode(0o600))?;
    let written = rustix::io::write(&file, content)?;
    if written == content.len() { Ok(()) } else { Err(Errno::IO) }
}

pub(super) fn read(images: &OwnedFd, name: &str) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(images, name, flags, Mode::empty())?;
    let mut text = vec![0; 64 << 10];
    let length = rustix::io::read(&file, text.as_mut_slice())?;
    text.truncate(length);
    Ok(text)
}
