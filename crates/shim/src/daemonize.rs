//! Turning the forked child into a process of its own: session, streams, signals, name and OOM score.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::Signal;

use crate::{ShimError, log};

/// What containerd's shims use: the kernel kills the container long before its shim.
const OOM_SCORE: &str = "-999";
/// Signals a shim outlives: it ends by Shutdown, or by SIGKILL.
const SURVIVED: [Signal; 5] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::PIPE];

/// Leaves the caller's session and streams. `bundle` holds the engine's `log` FIFO, if there is one.
pub(crate) fn detach(bundle: &Path) -> Result<(), ShimError> {
    let failed = |what| move |errno: rustix::io::Errno| ShimError::Process { what, source: errno.into() };
    rustix::process::setsid().map_err(failed("make a session"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open /dev/null"))?;
    // stderr first: the caller reads stdout to its end, and must not see that end before we are ready.
    let log = open_log(bundle);
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null)).map_err(failed("redirect stderr"))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("redirect stdin"))?;
    rustix::stdio::dup2_stdout(&null).map_err(failed("redirect stdout"))?;
    for signal in SURVIVED {
        // A handler, not SIG_IGN: that would be inherited by the container's processes.
        berth_sys::shim_process::swallow_signal(signal.as_raw()).map_err(failed("handle signals"))?;
    }
    // The binary may have been executed by descriptor, which leaves a number as its name.
    rustix::thread::set_name(c"berth-shim").map_err(failed("set the process name"))
}

fn open_log(bundle: &Path) -> Option<OwnedFd> {
    let fifo = bundle.join("log");
    let is_fifo = rustix::fs::stat(&fifo).is_ok_and(|meta| FileType::from_raw_mode(meta.st_mode) == FileType::Fifo);
    if is_fifo {
        // Reading too, so that neither the open nor a write needs a reader to be there.
        return rustix::fs::open(&fifo, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok();
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(bundle.join("shim.log"), flags, Mode::from_raw_mode(0o600)).ok()
}

/// Protects the shim from the OOM killer where that is permitted (CVE-2019-14891). Returns the score it had, which the
/// container's processes shall have again.
pub(crate) fn lower_oom_score() -> Option<i32> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(FILE).ok()?.trim().parse().ok()?;
    match std::fs::write(FILE, OOM_SCORE) {
        Ok(()) => Some(before),
        // Without CAP_SYS_RESOURCE: nothing changed, so nothing must be undone for the container.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => {
            log::warn(&format!("cannot set oom_score_adj: {error}"));
            None
        }
    }
}
