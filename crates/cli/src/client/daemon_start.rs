//! Connects; when nobody answers on the default socket, starts `berthd` once and waits for it.
//!
//! Two command lines at the same time start one daemon: the starter holds a lock on `<state>/berthd.start.lock` from before
//! its second look at the socket until the daemon answers. A named socket (`-H`, `BERTH_HOST`) is never started for.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::Address;
use crate::failure::{Failure, Outcome};
use crate::pause::pause;

const START_DEADLINE: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const LOG_TAIL_BYTES: usize = 2000;

/// A connection to the daemon at `address`.
pub(super) fn connect(address: &Address) -> Outcome<UnixStream> {
    let error = match UnixStream::connect(&address.socket) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let nobody_answers = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    if nobody_answers && address.is_default && rustix::process::geteuid().is_root() {
        return start(address);
    }
    let failure = Failure::new(format!("cannot connect to the daemon at {address}")).because(&error);
    Err(match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint("run as root, or as a member of the socket's group"),
        _ if !nobody_answers => failure,
        _ if address.is_default => failure.hint("berthd is started by itself only for root; run as root"),
        _ => failure.hint(format!(
            "is berthd running there? start one with: berthd --root DIR --state {}",
            address.directory().display()
        )),
    })
}

fn start(address: &Address) -> Outcome<UnixStream> {
    let state = address.directory();
    let _lock = lock(state)?;
    // Another command line may have started it while we waited for the lock.
    if let Ok(stream) = UnixStream::connect(&address.socket) {
        return Ok(stream);
    }
    let program = find_daemon().ok_or_else(|| {
        Failure::new("no daemon is running, and berthd was not found beside berth or on PATH")
            .hint("install berthd, or name a running daemon with -H unix:///path/docker.sock")
    })?;
    let log_path = state.join("berthd.log");
    let (log, log_start) = open_log(&log_path)?;
    let mut child = spawn(&program, &log)?;
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Ok(stream) = UnixStream::connect(&address.socket) {
            return Ok(stream);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(early_exit(&program, status, &log, log_start, &log_path));
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "{} was started but does not answer at {address} after {} s",
                program.display(),
                START_DEADLINE.as_secs()
            ))
            .hint(format!("see {}", log_path.display())));
        }
        pause(RETRY_PAUSE);
    }
}

fn lock(state: &Path) -> Outcome<File> {
    let path = state.join("berthd.start.lock");
    let failed = |error: io::Error| Failure::new(format!("cannot lock {}", path.display())).because(&error);
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(state).map_err(failed)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    Ok(file)
}

/// Beside our own binary, else on the search path of the system.
pub(crate) fn find_daemon() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("berthd")));
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".into());
    beside.into_iter().chain(std::env::split_paths(&search).map(|dir| dir.join("berthd"))).find(|path| path.is_file())
}

/// The log and its length before the daemon writes to it: descriptors of one open file share their position.
fn open_log(path: &Path) -> Outcome<(File, u64)> {
    let open = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(path);
    let mut log = open.map_err(|error| Failure::new(format!("cannot open {}", path.display())).because(&error))?;
    let start = log.seek(SeekFrom::End(0))?;
    Ok((log, start))
}

fn spawn(program: &Path, log: &File) -> Outcome<Child> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).current_dir("/");
    berth_sys::detached::in_new_session(&mut command);
    command.spawn().map_err(|error| Failure::new(format!("cannot start {}", program.display())).because(&error))
}

fn early_exit(program: &Path, status: std::process::ExitStatus, log: &File, log_start: u64, path: &Path) -> Failure {
    let mut tail = [0; LOG_TAIL_BYTES];
    // The log is a courtesy here; the failure itself is already known.
    let length = log.read_at(&mut tail, log_start).unwrap_or(0);
    let mut failure = Failure::new(format!("{} ended at once: {status}", program.display()));
    failure.because.extend(String::from_utf8_lossy(&tail[..length]).lines().map(str::to_owned));
    failure.hint(format!("its log is {}", path.display()))
}
