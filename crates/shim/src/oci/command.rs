//! Running one command of a runtime: its flags, its deadline, and what it says when it fails.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use berth_runtime::RuntimeError;
use berth_types::{Classify, ErrorClass};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};

use super::null::{not_the_hosts, private_null};

/// Hooks run within `create`, `start` and `delete`.
const TIMEOUT: Timespec = Timespec { tv_sec: 100, tv_nsec: 0 };
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
const LOG: &str = "log.json";
/// Runtimes look for their helpers there; the shim itself has no such variable.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Another OCI runtime, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OciRuntime {
    pub(crate) binary: PathBuf,
    /// Before the verb.
    pub(crate) arguments: Vec<String>,
    /// `--root`
    pub(crate) root: PathBuf,
}

/// Standard streams of a command.
#[derive(Debug)]
pub(super) enum Streams {
    /// Those of the container's process.
    Of([OwnedFd; 3]),
    /// Nothing comes in, and what comes out is ours to read.
    None,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CommandError {
    #[error("cannot execute runtime {}", .binary.display())]
    Execute { binary: PathBuf, source: io::Error },
    #[error("runtime {} {verb} failed ({status}): {detail}", .binary.display())]
    Failed { binary: PathBuf, verb: String, status: ExitStatus, detail: String },
    #[error("runtime {} {verb} did not end within {} s", .binary.display(), TIMEOUT.tv_sec)]
    Deadline { binary: PathBuf, verb: String },
    #[error("cannot {what} {}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the runtime wrote pid {pid}, which cannot be one")]
    Pid { pid: u32 },
    #[error("runtime {} {verb} gave an answer that is not understood", .binary.display())]
    Answer { binary: PathBuf, verb: &'static str, source: serde_json::Error },
    #[error("cannot write the container's {what}")]
    Document { what: &'static str, source: serde_json::Error },
    #[error("the runtime gave no terminal")]
    NoTerminal,
    #[error("cannot find the process's user")]
    User { source: RuntimeError },
    #[error("cannot look at the container's cgroup")]
    Cgroup { source: Box<berth_cgroup::CgroupError> },
    #[error("cannot mount the container's root file system")]
    Mount { source: Box<dyn std::error::Error + Send + Sync> },
}

impl Classify for CommandError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Deadline { .. } => ErrorClass::DeadlineExceeded,
            Self::User { source } => source.class(),
            Self::Cgroup { source } => source.class(),
            _ => ErrorClass::Internal,
        }
    }
}

impl CommandError {
    /// Whether it was the user's program that could not be executed. A command line has no other way to tell than its words: these are
    /// runc's, crun's, youki's and gVisor's.
    pub(crate) fn exec_failure(&self) -> Option<ErrorClass> {
        match self {
            Self::Failed { detail, .. } => exec_failure(detail),
            _ => None,
        }
    }
}

pub(crate) fn exec_failure(detail: &str) -> Option<ErrorClass> {
    let detail = detail.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    let is_about_it = has(&["executable file", "exec: \"", "exec: `", "error finding executable", "open executable"]);
    if is_about_it && has(&["not found", "no such file or directory"]) {
        return Some(ErrorClass::NotFound);
    }
    let is_refused = has(&["permission denied", "is a directory", "exec format error"]);
    (is_about_it && is_refused).then_some(ErrorClass::PermissionDenied)
}

impl OciRuntime {
    /// Runs `<binary> --root … --log … <arguments> <words>` in `directory` to its end; what it printed.
    pub(super) fn run(&self, directory: &Path, words: &[String], streams: Streams) -> Result<Vec<u8>, CommandError> {
        let verb = || words.first().cloned().unwrap_or_default();
        let execute = |source| CommandError::Execute { binary: self.binary.clone(), source };
        let log = directory.join(LOG);
        std::fs::remove_file(&log).ok();
        let (mut output, mut complaint) = (memory_file()?, memory_file()?);
        let [stdin, stdout, stderr] = match streams {
            Streams::Of([stdin, stdout, stderr]) => [own(stdin)?, own(stdout)?, own(stderr)?],
            Streams::None => [private_null().map_err(no_null)?.into(), same(&output)?, same(&complaint)?],
        };
        let mut child = Command::new(&self.binary)
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(&self.arguments)
            .args(words)
            .env_clear()
            .env("PATH", PATH)
            .current_dir(directory)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(execute)?;
        let Some(status) = wait(&mut child).map_err(execute)? else {
            return Err(CommandError::Deadline { binary: self.binary.clone(), verb: verb() });
        };
        if status.success() {
            return read(&mut output);
        }
        let complaint = read(&mut complaint)?;
        let detail = std::fs::read(&log).ok().and_then(|lines| last_error(&lines));
        let detail = detail.unwrap_or_else(|| String::from_utf8_lossy(&complaint).trim().to_owned());
        Err(CommandError::Failed { binary: self.binary.clone(), verb: verb(), status, detail })
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        verb: &'static str,
        json: &[u8],
    ) -> Result<T, CommandError> {
        serde_json::from_slice(json).map_err(|source| CommandError::Answer {
            binary: self.binary.clone(),
            verb,
            source,
        })
    }
}

/// `None`: it did not end in time, and was ended.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    // Not yet waited for: the number is still its own.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let ready =
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&TIMEOUT)))?;
    if ready == 0 {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok((ready > 0).then_some(status))
}

fn memory_file() -> Result<File, CommandError> {
    let made = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).map(File::from);
    made.map_err(|errno| CommandError::File { what: "make", path: "a file in memory".into(), source: errno.into() })
}

fn own(stream: OwnedFd) -> Result<Stdio, CommandError> {
    not_the_hosts(stream).map(Stdio::from).map_err(no_null)
}

fn no_null(errno: rustix::io::Errno) -> CommandError {
    CommandError::File { what: "make", path: "a null device".into(), source: errno.into() }
}

fn same(file: &File) -> Result<Stdio, CommandError> {
    let again = file.try_clone().map(Stdio::from);
    again.map_err(|source| CommandError::File { what: "share", path: "a file in memory".into(), source })
}

fn read(file: &mut File) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let done = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
    done.map_err(|source| CommandError::File { what: "read", path: "the runtime's output".into(), source })?;
    Ok(bytes)
}

/// Of a log in JSON lines.
fn last_error(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let lines = log.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    lines.rev().find(|line| matches!(line.level.as_str(), "error" | "fatal" | "warning")).map(|line| line.msg)
}

pub(super) fn read_pid(path: &Path) -> Result<u32, CommandError> {
    let failed = |source| CommandError::File { what: "read", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    text.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// Writes a document that holds the container's environment: for root's eyes.
pub(super) fn in_file(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let failed = |source| CommandError::File { what: "write", path: path.to_owned(), source };
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    io::Write::write_all(&mut file, bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(binary: &str) -> OciRuntime {
        OciRuntime { binary: binary.into(), arguments: vec!["-c".to_owned()], root: "/r".into() }
    }

    fn failed(detail: &str) -> CommandError {
        let status = std::os::unix::process::ExitStatusExt::from_raw(256);
        CommandError::Failed {
            binary: "/usr/bin/runc".into(),
            verb: "create".to_owned(),
            status,
            detail: detail.into(),
        }
    }

    /// S-137: the words of runtimes for a program that cannot be executed.
    #[test]
    fn s137_words_for_a_missing_program() {
        for (detail, class) in [
            (
                "runc create failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
                Some(ErrorClass::NotFound),
            ),
            ("exec: \"/nosuch\": stat /nosuch: no such file or directory", Some(ErrorClass::NotFound)),
            ("executable file `nosuch` not found in $PATH: No such file or directory", Some(ErrorClass::NotFound)),
            ("exec: \"/etc/passwd\": permission denied", Some(ErrorClass::PermissionDenied)),
            ("error mounting \"/x\": no such file or directory", None),
        ] {
            assert_eq!(failed(detail).exec_failure(), class, "{detail}");
        }
    }

    #[test]
    fn commands_run_and_say_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let missing = runtime("/nowhere/runc").run(dir.path(), &["state".to_owned()], Streams::None).unwrap_err();
        assert_eq!(missing.class(), ErrorClass::NotFound);
        assert!(missing.to_string().contains("/nowhere/runc"), "{missing}");
        let log = br#"{"level":"info","msg":"a"}
{"level":"error","msg":"it is so","time":"x"}
"#;
        assert_eq!(last_error(log).as_deref(), Some("it is so"));
        assert_eq!(last_error(b"plain"), None);
    }
}
