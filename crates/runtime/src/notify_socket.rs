//! systemd's readiness protocol for a container (sd_notify(3)): the program inside writes to a socket of its own, and what it says goes
//! on to the socket the runtime was given, with the container's process as the main one.
//!
//! ```text
//! <state>/<id>/notify/              bound read-only to /run/notify in the container
//!     notify.sock                   there from start on, until the container said that it is ready
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::RuntimeError;
use crate::state::StateDir;

const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// What a message may be long; systemd's own limit.
const MESSAGE_MAX: usize = 4096;

/// The directory of a container's socket.
#[derive(Debug)]
pub struct NotifyDir(PathBuf);

impl NotifyDir {
    /// Makes the directory and has the spec bind it and name the socket.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(state: &StateDir, spec: &mut Spec) -> Result<Self, RuntimeError> {
        let path = state.file("notify");
        let failed = |source: Errno| RuntimeError::Kernel { what: "make the directory of the notify socket", source };
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let mut mount = Mount::default();
        mount
            .set_destination(INSIDE.into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(path.clone()))
            .set_options(Some(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec()));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let environment = process.env_mut().get_or_insert_default();
            environment.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
            environment.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        }
        Ok(Self(path))
    }

    /// That of a container made before; `None` when it was made without.
    pub fn open(state: &StateDir) -> Option<Self> {
        let path = state.file("notify");
        path.is_dir().then_some(Self(path))
    }

    /// Opens the socket, before the container's program can look for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(self) -> Result<NotifySocket, RuntimeError> {
        let failed = |source: Errno| RuntimeError::Kernel { what: "open the container's notify socket", source };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(failed)?;
        let directory =
            rustix::fs::open(&self.0, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())
                .map_err(failed)?;
        // Socket names are short; this keeps ours so, however deep the directory is.
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{number}/{NAME}")).map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        // Whoever the program becomes may write.
        rustix::fs::chmodat(&directory, NAME, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())
            .map_err(failed)?;
        Ok(NotifySocket { socket, path: self.0.join(NAME) })
    }
}

/// The container's end, held by who started it.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
}

impl NotifySocket {
    /// Passes messages on to `host` (a path, or `@name`) until one says READY=1 or the container's process is gone.
    ///
    /// # Errors
    /// The kernel's, when `host` cannot be reached.
    pub fn forward(&self, host: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), RuntimeError> {
        let passed = self.pass_on(host, pid, pidfd);
        let _gone_already = rustix::fs::unlink(&self.path);
        passed.map_err(|source| RuntimeError::Kernel { what: "pass the container's readiness on", source })
    }

    fn pass_on(&self, host: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = SocketFlags::CLOEXEC;
        let sender = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let address = match host.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            None => SocketAddrUnix::new(Path::new(host)),
        };
        let address = address?;
        loop {
            let Some(message) = self.next(pidfd)? else { return Ok(()) };
            let is_ready = message.split(|b| *b == b'\n').any(|line| line == b"READY=1");
            // systemd takes messages of the main process only, so it has to know it first.
            let text = [message.as_slice(), b"\n", format!("MAINPID={pid}\n").as_bytes()].concat();
            rustix::net::sendto(&sender, &text, SendFlags::NOSIGNAL, &address)?;
            if is_ready {
                return Ok(());
            }
        }
    }

    /// The next message; `None` when the process is gone and nothing is left of what it said.
    fn next(&self, pidfd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
        let mut message = vec![0; MESSAGE_MAX];
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(self.socket.as_fd(), &mut message[..], RecvFlags::empty()))?;
        message.truncate(length);
        Ok(Some(message))
    }
}
