//! A program of another engine that takes the output, `binary:///path?key=value` (containerd, core/runtime/v2/README.md, "Logging"; nerdctl's
//! logs are written so).
//!
//! ```text
//! descriptor 3 stdout, 4 stderr: read until their end      5: closed once it is ready
//! CONTAINER_ID, CONTAINER_NAMESPACE                        key and value of each pair of the address: its arguments
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_sys::clone::{CloneArgs, clone_child};
use berth_sys::process::{StringArray, execve, place_fd, reset_signals};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;

use super::outlet::Outlet;
use super::process_io::IoError;
use super::{set_nonblocking, watch};
use crate::{log, reaper};

/// For it to say that it is ready.
const READY: Duration = Duration::from_secs(10);
/// For it to end once it has read everything, as containerd has it.
const END: Duration = Duration::from_secs(12);
const FIRST_PASSED: u16 = 3;
/// Above the numbers that are given out.
const OUT_OF_THE_WAY: i32 = 10;

/// What the address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// Of whom it writes: the container, or an added process, as the field's shims have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) namespace: String,
}

/// It runs.
#[derive(Debug)]
pub(crate) struct LogBinary {
    path: PathBuf,
    pidfd: Arc<OwnedFd>,
    ready: OwnedFd,
}

impl LogBinary {
    /// Starts it; our ends of its two streams.
    pub(crate) fn start(program: &Program, subject: &Subject) -> Result<(Self, [OwnedFd; 2]), IoError> {
        let failed = |errno: Errno| IoError::Open { what: "logger", path: program.path.clone(), source: errno.into() };
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed);
        let ((stdout, to_stdout), (stderr, to_stderr), (ready, tell_ready)) = (pipe()?, pipe()?, pipe()?);
        let (told, tell) = pipe()?;
        let text = |text: Vec<u8>| CString::new(text).map_err(|_| failed(Errno::INVAL));
        let path = text(program.path.as_os_str().as_bytes().to_vec())?;
        let mut words = vec![path.clone()];
        for argument in &program.arguments {
            words.push(text(argument.clone().into_bytes())?);
        }
        let environment = [("CONTAINER_ID", &subject.id), ("CONTAINER_NAMESPACE", &subject.namespace)];
        let environment = environment.map(|(name, value)| text(format!("{name}={value}").into_bytes()));
        let environment = environment.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (words, environment) = (StringArray::new(words), StringArray::new(environment));
        let child = clone_child(&CloneArgs::default(), || {
            let ready = reset_signals().and_then(|()| place_all(&[&stdout, &stderr, &tell_ready]));
            let errno = ready.err().unwrap_or_else(|| execve(&path, &words, &environment));
            rustix::io::write(&tell, &errno.raw_os_error().to_ne_bytes()).ok();
            1
        });
        let child = child.map_err(failed)?;
        drop(tell);
        let mut errno = [0; 4];
        // Its end is the execution.
        if rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut errno)).map_err(failed)? > 0 {
            reaper::end(Arc::new(child.pidfd));
            return Err(failed(Errno::from_raw_os_error(i32::from_ne_bytes(errno))));
        }
        Ok((Self { path: program.path.clone(), pidfd: Arc::new(child.pidfd), ready }, [to_stdout, to_stderr]))
    }

    /// Returns when it says that it is ready; what does not is ended.
    pub(crate) async fn ready(self) -> Result<(), IoError> {
        let failed = |source| IoError::Open { what: "logger", path: self.path.clone(), source };
        set_nonblocking(&self.ready).map_err(failed)?;
        let ready = watch(self.ready, Interest::READABLE).map_err(failed)?;
        // A byte or the end: both mean it.
        match tokio::time::timeout(READY, ready.readable()).await {
            Ok(said) => said.map(drop).map_err(failed),
            Err(_) => {
                reaper::end(self.pidfd);
                Err(failed(std::io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Takes its status in a job. Once it has everything it may finish its work, for so long.
    pub(crate) fn follow(&self, outlets: Vec<Arc<Outlet>>) {
        let (pidfd, path) = (Arc::clone(&self.pidfd), self.path.clone());
        tokio::spawn(async move {
            let late = async {
                for outlet in outlets {
                    outlet.closed().await;
                }
                tokio::time::sleep(END).await;
            };
            tokio::select! {
                () = reaper::ended(&pidfd) => {}
                () = late => {
                    log::warn(&format!("logger {} does not end, and is killed", path.display()));
                    pidfd_send_signal(&pidfd, Signal::KILL).ok();
                }
            }
            reaper::collect_later(pidfd);
        });
    }
}

fn place_all(descriptors: &[&OwnedFd]) -> Result<(), Errno> {
    let mut aside = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        aside.push(rustix::io::fcntl_dupfd_cloexec(descriptor.as_fd(), OUT_OF_THE_WAY)?);
    }
    (FIRST_PASSED..).zip(&aside).try_for_each(|(number, descriptor)| place_fd(descriptor, number))
}
