//! Hooks of the runtime specification: programs run at six points of a container's life, with its state on standard input.
//!
//! # Spec
//! runtime-spec config, "POSIX-platform Hooks".

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_oci::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::RuntimeError;
use crate::meanwhile::Meanwhile;

/// For a hook that names no timeout: nothing waits for ever.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
/// What is kept of a hook's standard error; the rest is read and dropped, so that it can go on.
const KEPT_MAX: usize = 64 << 10;
/// What of it the message says.
const TOLD_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookStage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// All of them, in the order of a container's life.
pub(crate) const STAGES: [HookStage; 6] = [
    HookStage::Prestart,
    HookStage::CreateRuntime,
    HookStage::CreateContainer,
    HookStage::StartContainer,
    HookStage::Poststart,
    HookStage::Poststop,
];

impl HookStage {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    pub(crate) fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Runs all hooks of a stage in order; the first failure ends it. A hook that names no environment has the one given.
pub(crate) fn run(
    stage: HookStage,
    hooks: Option<&Hooks>,
    state: &[u8],
    environment: &[String],
    meanwhile: Meanwhile,
) -> Result<(), RuntimeError> {
    let Some(hooks) = hooks else { return Ok(()) };
    for (index, hook) in stage.of(hooks).iter().enumerate() {
        run_one(hook, state, environment, meanwhile).map_err(|problem| RuntimeError::Hook {
            stage: stage.text(),
            index,
            path: hook.path().display().to_string(),
            problem,
        })?;
    }
    Ok(())
}

/// Runs all hooks of a stage whatever comes of them; what went wrong, for warnings.
pub(crate) fn run_all(stage: HookStage, hooks: Option<&Hooks>, state: &[u8], meanwhile: Meanwhile) -> Vec<String> {
    let Some(hooks) = hooks else { return Vec::new() };
    let failures = stage.of(hooks).iter().filter_map(|hook| {
        let problem = run_one(hook, state, &[], meanwhile).err()?;
        Some(format!("{} hook {} failed: {problem}", stage.text(), hook.path().display()))
    });
    failures.collect()
}

fn run_one(hook: &Hook, state: &[u8], environment: &[String], meanwhile: Meanwhile) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stdin = memory_file("hook-state").map_err(text)?;
    stdin.write_all(state).map_err(text)?;
    stdin.rewind().map_err(text)?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| errno.to_string())?;
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).map_err(|errno| errno.to_string())?;
    let mut command = Command::new(hook.path());
    let mut arguments = hook.args().iter().flatten();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    for entry in hook.env().as_deref().unwrap_or(environment) {
        if let Some((key, value)) = entry.split_once('=') {
            command.env(key, value);
        }
    }
    command.stdin(Stdio::from(stdin)).stdout(Stdio::null()).stderr(Stdio::from(writer));
    let mut child = command.spawn().map_err(text)?;
    // Our copy of the writing end: without it the end of what is printed is seen.
    drop(command);
    wait(&mut child, timeout(hook), reader, meanwhile)
}

fn timeout(hook: &Hook) -> Duration {
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(TIMEOUT_DEFAULT, Duration::from_secs)
}

fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn wait(
    child: &mut std::process::Child,
    timeout: Duration,
    stderr: OwnedFd,
    meanwhile: Meanwhile,
) -> Result<(), String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("has no process id")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| errno.to_string())?;
    let mut printed = Printed { pipe: Some(stderr), kept: Vec::new() };
    let in_time = printed.follow(&pidfd, timeout, meanwhile);
    if in_time.is_err() {
        let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match in_time {
        Ok(()) => {}
        Err(Errno::TIMEDOUT) => return Err(format!("was killed after {} s", timeout.as_secs())),
        Err(errno) => return Err(format!("was killed, for it cannot be waited for: {errno}")),
    }
    if status.success() {
        return Ok(());
    }
    let said = printed.text();
    let is_filtered = std::os::unix::process::ExitStatusExt::signal(&status) == Some(31);
    let filtered = if is_filtered { " bad system call" } else { "" };
    Err(format!("{status}{filtered}{}{said}", if said.is_empty() { "" } else { ": " }))
}

/// What a hook prints on its standard error.
struct Printed {
    /// `None`: nobody has the other end any more.
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Printed {
    /// Takes what comes until the hook has ended; `ETIMEDOUT` when it has not in time. Who else has the pipe by then (a process it left behind)
    /// is not waited for.
    fn follow(&mut self, ended: &OwnedFd, timeout: Duration, meanwhile: Meanwhile) -> Result<(), Errno> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            let pipe: Option<BorrowedFd<'_>> = self.pipe.as_ref().map(std::os::fd::AsFd::as_fd);
            let mut fds = [PollFd::new(ended, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            if let Some(pipe) = pipe {
                fds[1] = PollFd::from_borrowed_fd(pipe, PollFlags::IN);
            }
            let ready = meanwhile.wait(|| rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left))))?;
            let has_ended = !fds[0].revents().is_empty();
            if ready == 0 {
                return Err(Errno::TIMEDOUT);
            }
            self.take();
            if has_ended {
                return Ok(());
            }
        }
    }

    /// All that is there now.
    fn take(&mut self) {
        let mut bytes = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut bytes)) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = KEPT_MAX - self.kept.len();
                    self.kept.extend_from_slice(bytes.get(..count.min(room)).unwrap_or_default());
                }
                // Nothing more for now, or for ever.
                Err(_) => return,
            }
        }
    }

    fn text(&self) -> String {
        let told = self.kept.get(..TOLD_MAX).unwrap_or(&self.kept);
        String::from_utf8_lossy(told).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed_by(script: &str) -> (Printed, Result<(), Errno>) {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
        let mut child = Command::new("/bin/sh").args(["-c", script]).stderr(Stdio::from(writer)).spawn().unwrap();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut printed = Printed { pipe: Some(reader), kept: Vec::new() };
        let ended = printed.follow(&pidfd, Duration::from_secs(60), Meanwhile::default());
        child.wait().unwrap();
        (printed, ended)
    }

    /// However much a hook prints, it goes on to its end, and a bounded part is kept.
    #[test]
    fn what_a_hook_prints_is_bounded() {
        let (printed, ended) = printed_by("echo first >&2; head -c 8000000 /dev/zero | tr '\\0' x >&2");
        assert_eq!(ended, Ok(()));
        assert_eq!(printed.kept.len(), KEPT_MAX);
        assert!(printed.kept.starts_with(b"first\nxxx"));
        assert_eq!(printed.text().len(), TOLD_MAX);
    }

    /// A process that a hook left behind has its standard error still.
    #[test]
    fn what_a_hook_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let (printed, ended) = printed_by("echo said >&2; sleep 30 & echo $! > /dev/null; kill -9 $$");
        assert_eq!((ended, printed.text().as_str()), (Ok(()), "said"));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
