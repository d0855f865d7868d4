//! Hooks of the runtime specification: programs run at six points of a container's life, with its state on standard input.
//!
//! # Spec
//! runtime-spec config, "POSIX-platform Hooks".

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_oci::runtime::{Hook, Hooks};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::channel::wait_readable;
use crate::error::RuntimeError;

/// For a hook that names no timeout: nothing waits for ever.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
/// What is kept of a hook's standard error for the message.
const STDERR_MAX: u64 = 1024;

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

/// Runs all hooks of a stage in order; the first failure ends it.
pub(crate) fn run(stage: HookStage, hooks: Option<&Hooks>, state: &[u8]) -> Result<(), RuntimeError> {
    run_with(stage, hooks, state, &[])
}

/// The same; a hook that names no environment has this one.
pub(crate) fn run_with(
    stage: HookStage,
    hooks: Option<&Hooks>,
    state: &[u8],
    environment: &[String],
) -> Result<(), RuntimeError> {
    let Some(hooks) = hooks else { return Ok(()) };
    for (index, hook) in stage.of(hooks).iter().enumerate() {
        run_one(hook, state, environment).map_err(|problem| RuntimeError::Hook {
            stage: stage.text(),
            index,
            path: hook.path().display().to_string(),
            problem,
        })?;
    }
    Ok(())
}

/// Runs all hooks of a stage whatever comes of them; what went wrong, for warnings.
pub(crate) fn run_all(stage: HookStage, hooks: Option<&Hooks>, state: &[u8]) -> Vec<String> {
    let Some(hooks) = hooks else { return Vec::new() };
    let failures = stage.of(hooks).iter().filter_map(|hook| {
        let problem = run_one(hook, state, &[]).err()?;
        Some(format!("{} hook {} failed: {problem}", stage.text(), hook.path().display()))
    });
    failures.collect()
}

fn run_one(hook: &Hook, state: &[u8], environment: &[String]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stdin = memory_file("hook-state").map_err(text)?;
    stdin.write_all(state).map_err(text)?;
    stdin.rewind().map_err(text)?;
    let stderr = memory_file("hook-errors").map_err(text)?;
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
    command.stdin(Stdio::from(stdin)).stdout(Stdio::null());
    command.stderr(Stdio::from(stderr.try_clone().map_err(text)?));
    let mut child = command.spawn().map_err(text)?;
    wait(&mut child, timeout(hook), stderr)
}

fn timeout(hook: &Hook) -> Duration {
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(TIMEOUT_DEFAULT, Duration::from_secs)
}

/// Limited in size by being short-lived; what a hook prints is read back in part only.
fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn wait(child: &mut std::process::Child, timeout: Duration, mut stderr: File) -> Result<(), String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("has no process id")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| errno.to_string())?;
    let in_time = wait_readable(pidfd.as_fd(), timeout);
    if in_time.is_err() {
        let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if in_time.is_err() {
        return Err(format!("was killed after {} s", timeout.as_secs()));
    }
    if status.success() {
        return Ok(());
    }
    let mut printed = String::new();
    if stderr.rewind().is_ok() {
        let mut bytes = Vec::new();
        let _partial = (&mut stderr).take(STDERR_MAX).read_to_end(&mut bytes);
        printed = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    let is_filtered = std::os::unix::process::ExitStatusExt::signal(&status) == Some(31);
    let filtered = if is_filtered { " bad system call" } else { "" };
    Err(format!("{status}{filtered}{}{printed}", if printed.is_empty() { "" } else { ": " }))
}
