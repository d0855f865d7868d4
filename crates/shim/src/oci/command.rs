//! Running one command of a runtime: its flags, its deadline, and what it says when it fails.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_runtime::RuntimeError;
use berth_types::{Classify, ErrorClass};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;

use super::null::{not_the_hosts, private_null};
use crate::reaper::Holds;

const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Where runtimes look for their helpers when whoever started the shim had no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a command may take: less than its caller waits, with what is undone after it, so that no answer comes to nobody.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Hooks run within.
    Hooks,
    Plain,
    /// After another one has failed.
    Undo,
}

impl Patience {
    const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hooks => 90,
            Self::Plain => 25,
            Self::Undo => 15,
        })
    }
}

/// Where commands run, and what they have of us.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) directory: PathBuf,
    /// PATH
    search: OsString,
    holds: Arc<Holds>,
    calls: AtomicU64,
}

impl Place {
    pub(crate) fn new(directory: PathBuf, search: &[PathBuf], holds: Arc<Holds>) -> Self {
        let search = std::env::join_paths(search).ok().filter(|path| !path.is_empty());
        Self { directory, search: search.unwrap_or_else(|| PATH.into()), holds, calls: AtomicU64::new(0) }
    }

    /// A name for a file of one call: several may be under way.
    pub(super) fn file(&self, stem: &str) -> OneCallFile {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        OneCallFile(self.directory.join(format!("{stem}-{number}")))
    }
}

/// Gone with the call it is for.
#[derive(Debug)]
pub(super) struct OneCallFile(PathBuf);

impl OneCallFile {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn name(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for OneCallFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

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
    #[error("runtime {} {verb} did not end within {seconds} s", .binary.display())]
    Deadline { binary: PathBuf, verb: String, seconds: u64 },
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
    /// Runs `<binary> --root … --log … <arguments> <words>` to its end; what it printed. Other calls are served meanwhile.
    pub(super) async fn run(
        &self,
        place: &Place,
        words: &[String],
        streams: Streams,
        patience: Patience,
    ) -> Result<Vec<u8>, CommandError> {
        let _hold = place.holds.hold();
        let verb = || words.first().cloned().unwrap_or_default();
        let execute = |source| CommandError::Execute { binary: self.binary.clone(), source };
        let log = place.file("log.json");
        let (mut output, mut complaint) = (memory_file()?, memory_file()?);
        let stdio = match streams {
            Streams::Of([stdin, stdout, stderr]) => [own(stdin)?, own(stdout)?, own(stderr)?],
            Streams::None => [private_null().map_err(no_null)?.into(), same(&output)?, same(&complaint)?],
        };
        let mut child = self.command(place, log.path(), words, stdio).spawn().map_err(execute)?;
        let Some(status) = wait(&mut child, patience.duration()).await.map_err(execute)? else {
            let seconds = patience.duration().as_secs();
            return Err(CommandError::Deadline { binary: self.binary.clone(), verb: verb(), seconds });
        };
        if status.success() {
            return read(&mut output);
        }
        let complaint = read(&mut complaint)?;
        let detail = std::fs::read(log.path()).ok().and_then(|lines| last_error(&lines));
        let detail = detail.unwrap_or_else(|| String::from_utf8_lossy(&complaint).trim().to_owned());
        Err(CommandError::Failed { binary: self.binary.clone(), verb: verb(), status, detail })
    }

    fn command(&self, place: &Place, log: &Path, words: &[String], [stdin, stdout, stderr]: [Stdio; 3]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"])
            .args(&self.arguments)
            .args(words)
            .env_clear()
            .env("PATH", OsStr::new(&place.search))
            .current_dir(&place.directory)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        command
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
async fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    // Not yet waited for: the number is still its own.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let watched = crate::io::watch(pidfd, Interest::READABLE)?;
    let has_ended = tokio::time::timeout(patience, watched.readable()).await.is_ok();
    if !has_ended {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(has_ended.then_some(status))
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

    #[tokio::test]
    async fn commands_run_and_say_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().to_owned(), &[], Arc::default());
        let words = ["state".to_owned()];
        let missing = runtime("/nowhere/runc").run(&place, &words, Streams::None, Patience::Plain).await.unwrap_err();
        assert_eq!(missing.class(), ErrorClass::NotFound);
        assert!(missing.to_string().contains("/nowhere/runc"), "{missing}");
        let log = br#"{"level":"info","msg":"a"}
{"level":"error","msg":"it is so","time":"x"}
"#;
        assert_eq!(last_error(log).as_deref(), Some("it is so"));
        assert_eq!(last_error(b"plain"), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
