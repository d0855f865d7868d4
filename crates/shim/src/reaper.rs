//! Collecting exit statuses: one job per child, woken by its pidfd, so no status can be lost between signals.
//!
//! With our own runtime the shim is no child subreaper: orphans of a container with a pid namespace of its own are reaped by its init, those
//! of other containers by the host's. With another runtime's commands it must be one, and then collects orphans, too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_types::{ExitNote, Timestamp};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::sync::Notify;

use crate::log;
use crate::process::Exit;

/// How often a process is looked after that was killed and is not gone: as often as this, then every second.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(2);

/// Waits for a child of ours. `Err` only when the descriptor cannot be watched.
pub(crate) fn follow(pidfd: &OwnedFd) -> io::Result<impl Future<Output = Exit> + Send + use<>> {
    let watched = crate::io::watch(pidfd.try_clone()?, Interest::READABLE)?;
    Ok(async move {
        loop {
            match watched.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => log::error(&format!("cannot watch a process: {error}")),
            }
            if let Some(exit) = collect(&watched) {
                return exit;
            }
        }
    })
}

/// Kills a process that nobody will follow and takes its status, if it is a child of ours: left alone it would run unseen, or stay a zombie.
/// Nobody waits for that here.
pub(crate) fn end(pidfd: Arc<OwnedFd>) {
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).ok();
    collect_later(pidfd);
}

/// Takes the status of a process that is about to end. By looking: there may be no descriptor to watch it with.
pub(crate) fn collect_later(pidfd: Arc<OwnedFd>) {
    tokio::spawn(async move {
        let mut looks = 0;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(None) | Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            looks += 1;
            tokio::time::sleep(if looks < LOOKS { LOOK } else { Duration::from_secs(1) }).await;
        }
    });
}

/// Returns when the process has ended, without taking its status; never, if that cannot be watched.
pub(crate) async fn ended(process: &OwnedFd) {
    let watched = process.try_clone().and_then(|fd| crate::io::watch(fd, Interest::READABLE));
    match watched {
        Ok(watched) => drop(watched.readable().await),
        Err(_) => std::future::pending().await,
    }
}

/// Work under way whose children are not known yet, or waited for by it alone: until it is done nobody else collects any.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    count: AtomicUsize,
    none_left: Notify,
}

impl Holds {
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.count.fetch_add(1, Ordering::Relaxed);
        Hold(Arc::clone(self))
    }

    pub(crate) fn is_held(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Returns when the last hold has been let go of since it returned before.
    pub(crate) async fn none_left(&self) {
        self.none_left.notified().await;
    }
}

#[derive(Debug)]
pub(crate) struct Hold(Arc<Holds>);

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none_left.notify_one();
        }
    }
}

/// Children that have ended and are not in the list, while nobody holds them ([`Holds`]).
pub(crate) fn collect_others(awaited: &[u32]) {
    let own = std::process::id();
    let Ok(children) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) else { return };
    let others = children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    for pid in others.filter(|pid| !awaited.contains(pid)) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG).ok();
        }
    }
}

fn collect(watched: &tokio::io::unix::AsyncFd<OwnedFd>) -> Option<Exit> {
    let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(watched.get_ref()));
    let at = Timestamp::now();
    match rustix::io::retry_on_intr(|| waitid(id.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)) {
        Ok(None) => None,
        Ok(Some(status)) => {
            const KILLED: u32 = 128;
            let code = status.exit_status().map(|code| code.cast_unsigned());
            let note = status.terminating_signal().map(|signal| ExitNote::new(signal, status.dumped()));
            let signal = note.map(|note| KILLED + note.signal.cast_unsigned());
            Some(Exit { code: code.or(signal).unwrap_or(255), at, note })
        }
        Err(errno) => {
            // Somebody else collected it, which nobody should: the end is certain, the status is lost.
            log::error(&format!("exit status of a process is lost: {errno}"));
            Some(Exit { code: 255, at, note: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_follows_is_no_zombie() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // One that is killed may take its time; whoever waits for others is served meanwhile.
            let pidfd = Arc::new(pidfd);
            collect_later(Arc::clone(&pidfd));
            tokio::time::sleep(LOOK * 2).await;
            assert!(child.try_wait().unwrap().is_none(), "it runs");
            end(Arc::clone(&pidfd));
            let begun = std::time::Instant::now();
            while std::path::Path::new(&format!("/proc/{}", child.id())).exists() {
                assert!(begun.elapsed().as_secs() < 30, "its status is not taken");
                tokio::time::sleep(LOOK).await;
            }
            child.try_wait().unwrap_err();
            // Gone: nothing to take, and no harm.
            end(pidfd);
        });
    }
}
