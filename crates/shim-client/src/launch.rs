//! Running a shim binary's verbs: `start` (it binds, forks, prints its address) and `delete` (cleaning up after a dead shim).

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_proto::bootstrap::{BootstrapParams, Extension};
use berth_proto::pack_as;
use berth_proto::protobuf::{Message, MessageField};
use berth_proto::task::DeleteResponse;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::{ExitStatus, Reports, ShimError, ShimOptions};

/// Name in the process list, whatever path the binary was executed by.
const OWN_SHIM: &str = "containerd-shim-berth-v1";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);
/// A shim's answer or complaint is short; more is not read.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What a shim finds on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Nothing,
    /// The runtime's options, up to containerd 2.2.
    Options,
    /// `BootstrapParams`, from containerd 2.3 on.
    Bootstrap,
}

/// Runs `start` and returns what it printed. Shims of containerd 2.3 take the older form too, older ones do not take the newer: so the older
/// comes first, and a shim that knows only the newer is started again.
pub(crate) async fn start(options: &ShimOptions) -> Result<Vec<u8>, ShimError> {
    if is_own(&options.binary) {
        return run(options, "start", Input::Nothing, START_TIMEOUT).await;
    }
    match run(options, "start", Input::Options, START_TIMEOUT).await {
        Err(first @ ShimError::Launch { .. }) => {
            run(options, "start", Input::Bootstrap, START_TIMEOUT).await.map_err(|_| first)
        }
        other => other,
    }
}

/// Runs `delete` for a task whose shim is dead: what is left of it is killed and removed.
pub(crate) async fn delete(options: &ShimOptions) -> Result<ExitStatus, ShimError> {
    let output = run(options, "delete", Input::Nothing, DELETE_TIMEOUT).await?;
    let reply = DeleteResponse::parse_from_bytes(&output)
        .map_err(|_| ShimError::Answer { answer: String::from_utf8_lossy(&output).into_owned() })?;
    Ok(ExitStatus { code: reply.exit_status, exited_at: berth_proto::instant::from_wire(&reply.exited_at) })
}

async fn run(options: &ShimOptions, verb: &'static str, input: Input, timeout: Duration) -> Result<Vec<u8>, ShimError> {
    let follow = |source| ShimError::Follow { binary: options.binary.clone(), verb, source };
    let mut child = command(options, verb, input)
        .map_err(follow)?
        .spawn()
        .map_err(|source| ShimError::Spawn { binary: options.binary.clone(), source })?;
    let outcome = tokio::time::timeout(timeout, finish(&mut child)).await;
    let (status, answer, complaint) = match outcome {
        Ok(result) => result.map_err(follow)?,
        Err(_) => {
            // Ours and not yet waited for, so the pid cannot have been reused.
            child.kill().map_err(follow)?;
            child.wait().map_err(follow)?;
            return Err(ShimError::Deadline { call: verb, seconds: timeout.as_secs() });
        }
    };
    if status.success() {
        return Ok(answer);
    }
    let output = String::from_utf8_lossy(&complaint).trim().to_owned();
    Err(ShimError::Launch { binary: options.binary.clone(), verb, status: status.to_string(), output })
}

async fn finish(child: &mut Child) -> io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        read_to_end(pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?, &mut answer).await?;
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    drop(watch(pidfd)?.readable().await?);
    let status = child.wait()?;
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take().filter(|_| !status.success()) {
        // The pipe holds all of it: the writer has ended.
        stderr.take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut complaint)?;
    }
    Ok((status, answer, complaint))
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may change descriptor; OwnedFd keeps one for life"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)
}

async fn read_to_end(receiver: pipe::Receiver, into: &mut Vec<u8>) -> io::Result<()> {
    while into.len() < OUTPUT_BYTES_MAX {
        receiver.readable().await?;
        match receiver.try_read_buf(into) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

fn command(options: &ShimOptions, verb: &'static str, input: Input) -> io::Result<Command> {
    let mut command = Command::new(&options.binary);
    if is_own(&options.binary) {
        command.arg0(OWN_SHIM).env_clear().env("BERTH_SOCKET_DIR", &options.socket_dir);
        if let Some(path) = std::env::join_paths(&options.search).ok().filter(|path| !path.is_empty()) {
            command.env("PATH", path);
        }
        if options.reports == Reports::OutOfMemory {
            command.env("BERTH_EVENTS", "oom");
        }
    }
    command
        .stdin(stdin(options, input)?)
        .arg("-namespace")
        .arg(&options.namespace)
        .arg("-address")
        .arg(&options.grpc_address)
        .arg("-publish-binary")
        .arg("")
        .arg("-id")
        .arg(options.id.as_str());
    if verb == "delete" {
        command.arg("-bundle").arg(&options.bundle);
    }
    command
        .arg(verb)
        .env("TTRPC_ADDRESS", &options.events_address)
        .env("GRPC_ADDRESS", &options.grpc_address)
        .env("NAMESPACE", &options.namespace)
        .env("MAX_SHIM_VERSION", "3")
        .current_dir(&options.bundle)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Our own shim takes everything by flags: one pipe less on the path of a start.
fn is_own(binary: &Path) -> bool {
    binary.starts_with("/proc") || binary.file_name() == Some(OsStr::new(OWN_SHIM))
}

fn stdin(options: &ShimOptions, input: Input) -> io::Result<Stdio> {
    let packed = options.runtime_options.clone().map(|(type_url, value)| pack_as(&type_url, value));
    match (input, packed) {
        (Input::Nothing, _) | (Input::Options, None) => Ok(Stdio::null()),
        (Input::Options, Some(packed)) => file_of(&packed),
        (Input::Bootstrap, packed) => {
            let extension = |any| Extension { value: MessageField::some(any), ..Default::default() };
            file_of(&bootstrap_params(options, packed.map(extension).into_iter().collect()))
        }
    }
}

/// What containerd 2.3 hands to a shim; the runtime's options travel as an extension.
fn bootstrap_params(options: &ShimOptions, extensions: Vec<Extension>) -> BootstrapParams {
    BootstrapParams {
        instance_id: options.id.as_str().to_owned(),
        namespace: options.namespace.clone(),
        containerd_ttrpc_address: options.events_address.display().to_string(),
        containerd_grpc_address: options.grpc_address.display().to_string(),
        extensions,
        socket_dir: Some(options.socket_dir.display().to_string()),
        ..Default::default()
    }
}

/// A file that needs no reader on our side.
fn file_of<M: Message>(message: &M) -> io::Result<Stdio> {
    let file = rustix::fs::memfd_create("bootstrap", rustix::fs::MemfdFlags::CLOEXEC)?;
    let bytes = message.write_to_bytes().map_err(io::Error::other)?;
    rustix::io::pwrite(&file, &bytes, 0)?;
    Ok(Stdio::from(file))
}
