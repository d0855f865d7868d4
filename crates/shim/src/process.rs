//! One process of the task: the container's init or an exec, from its request to its deletion.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::runtime;
use berth_types::{ExitNote, Timestamp};
use tokio::sync::watch;

use crate::error::TaskError;
use crate::io::ProcessIo;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0..=255; 128 + signal when killed by one.
    pub(crate) code: u32,
    pub(crate) at: Timestamp,
    /// Set when a signal ended it.
    pub(crate) note: Option<ExitNote>,
}

/// Where it stands. Only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// An exec that was asked for and has no process yet.
    Added,
    /// Init waits to exec.
    Created,
    Running,
    Exited(Exit),
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Added => "not started",
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited(_) => "stopped",
        }
    }
}

/// The addresses it was asked for with, as `State` gives them back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) task_id: String,
    /// Empty for init.
    pub(crate) exec_id: String,
    pub(crate) addresses: Addresses,
    pub(crate) io: Arc<ProcessIo>,
    status: watch::Sender<Status>,
    /// Turns true when it has ended and its output was delivered.
    settled: watch::Sender<bool>,
    live: Mutex<Live>,
    /// Held while it is started: its end is told after its start, although another runtime's command goes on when the process has ended. And
    /// while it is deleted, which only one does.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Live {
    pid: u32,
    pidfd: Option<Arc<OwnedFd>>,
    /// What an exec shall run, until it is started.
    plan: Option<Box<runtime::Process>>,
}

impl Process {
    pub(crate) fn new(
        task_id: String,
        exec_id: String,
        addresses: Addresses,
        io: Arc<ProcessIo>,
        plan: Option<runtime::Process>,
    ) -> Arc<Self> {
        Arc::new(Self {
            task_id,
            exec_id,
            addresses,
            io,
            status: watch::Sender::new(Status::Added),
            settled: watch::Sender::new(false),
            live: Mutex::new(Live { plan: plan.map(Box::new), ..Live::default() }),
            changing: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Host pid; 0 before there is a process.
    pub(crate) fn pid(&self) -> u32 {
        self.live().pid
    }

    pub(crate) fn take_plan(&self) -> Option<Box<runtime::Process>> {
        self.live().plan.take()
    }

    /// Without a descriptor it is another shim's.
    pub(crate) fn set_live(&self, pid: u32, pidfd: Option<Arc<OwnedFd>>, status: Status) {
        let mut live = self.live();
        live.pid = pid;
        live.pidfd = pidfd;
        self.status.send_replace(status);
    }

    pub(crate) fn set_running(&self) {
        self.status.send_if_modified(|status| {
            let may_run = matches!(status, Status::Added | Status::Created);
            if may_run {
                *status = Status::Running;
            }
            may_run
        });
    }

    /// First report wins. Whoever waits is woken.
    pub(crate) fn set_exited(&self, exit: Exit) {
        self.live().pidfd = None;
        self.status.send_if_modified(|status| {
            let is_first = !matches!(status, Status::Exited(_));
            if is_first {
                *status = Status::Exited(exit);
            }
            is_first
        });
    }

    pub(crate) fn set_settled(&self) {
        self.settled.send_replace(true);
    }

    /// Returns when it has ended.
    pub(crate) async fn exited(&self) -> Exit {
        let mut status = self.status.subscribe();
        loop {
            if let Status::Exited(exit) = *status.borrow_and_update() {
                return exit;
            }
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when it has ended and its output was delivered to the log and queued for clients.
    pub(crate) async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        if settled.wait_for(|settled| *settled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Signals exactly this process. By pidfd, so never another that got its number.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), TaskError> {
        let (pid, pidfd) = {
            let live = self.live();
            (live.pid, live.pidfd.clone())
        };
        let ended = || TaskError::Ended { id: self.task_id.clone(), exec_id: self.exec_id.clone() };
        let Some(pidfd) = pidfd else {
            return Err(match self.status() {
                Status::Exited(_) => ended(),
                other => TaskError::State { operation: "signal", state: other.name() },
            });
        };
        berth_sys::shim_process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&*pidfd), signal).map_err(|errno| {
            match errno {
                rustix::io::Errno::SRCH => ended(),
                errno => TaskError::Signal { pid, source: errno.into() },
            }
        })
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
