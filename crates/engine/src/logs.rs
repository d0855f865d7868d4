//! Reading json-file logs: from the end or by time, through rotated files, following until the container has ended.
//!
//! The shim is the only writer. A reader holds an open file and finds its place again by inode after a rotation, so nothing is lost or
//! doubled however often the files move on meanwhile.

mod file;
mod lines;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use berth_types::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::api::LogOptions;
use crate::container::{Run, RunProgress};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use file::Cursor;
pub use lines::{LogLine, LogLines};

/// Pieces between the reader and a face.
const CHANNEL: usize = 4;
/// A piece is handed on when it has so many bytes of text, or so many lines, or when there is no more to read.
const PIECE_BYTES: usize = 64 << 10;
const PIECE_LINES: usize = 4096;

impl Engine {
    /// Lines in the order they were written; the channel closes at the end (with `follow`, when the container has ended).
    ///
    /// # Errors
    /// `FailedPrecondition` when the container's log cannot be read back (driver `none`).
    pub async fn logs(&self, container_ref: &str, options: LogOptions) -> Result<mpsc::Receiver<LogLines>> {
        let container = self.find(container_ref)?;
        let (run, driver) = {
            let inner = container.lock();
            let run = inner.run.clone().filter(|_| inner.record.state.is_running());
            (run, inner.record.host.log_driver.clone())
        };
        if driver == "none" {
            return Err(EngineError::conflict("configured logging driver does not support reading")
                .with_hint("the container was made with --log-driver none"));
        }
        let path = self.inner.paths.log(&container.id);
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let watch = match &run {
            Some(_) if options.follow => Some(watch(&path)?),
            _ => None,
        };
        tokio::spawn(async move {
            if let Err(error) = read(path, options, sender, run, watch).await {
                tracing::warn!("reading a log ended early: {error}");
            }
        });
        Ok(receiver)
    }
}

#[expect(deprecated, reason = "sound for a descriptor that owns its number; the new call is unsafe")]
/// Wakes on writes to the log and on rotation. Registered before the first read, so that no write is missed.
fn watch(path: &Path) -> Result<AsyncFd<std::os::fd::OwnedFd>> {
    let dir = path.parent().unwrap_or(path);
    let failed = |error: std::io::Error| EngineError::io("watch", dir, &error);
    let fd =
        inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, dir, what).map_err(|e| failed(e.into()))?;
    AsyncFd::new(fd).map_err(failed)
}

async fn read(
    path: std::path::PathBuf,
    options: LogOptions,
    sender: mpsc::Sender<LogLines>,
    run: Option<Arc<Run>>,
    watch: Option<AsyncFd<std::os::fd::OwnedFd>>,
) -> Result<()> {
    let history_options = options.clone();
    let history_sender = sender.clone();
    let shown = path.clone();
    // The history may be long: a blocking thread reads it, waiting for the client.
    let history = tokio::task::spawn_blocking(move || {
        let Some(mut cursor) = Cursor::open(&path, history_options.tail, history_options.since)? else {
            return Ok(None);
        };
        loop {
            let (lines, state) = piece(&mut cursor, &history_options)?;
            if !lines.is_empty() && history_sender.blocking_send(lines).is_err() {
                return Ok(None);
            }
            match state {
                State::More => {}
                State::NoMoreYet => return Ok(Some(cursor)),
                State::Over => return Ok(None),
            }
        }
    });
    let failed = |error: std::io::Error| EngineError::io("read log", &shown, &error);
    let cursor = history.await.map_err(|_| EngineError::internal("a worker thread ended early"))?.map_err(failed)?;
    if let (Some(cursor), Some(run), Some(watch)) = (cursor, run, watch) {
        follow(cursor, &options, &sender, &run, &watch).await.map_err(failed)?;
    }
    Ok(())
}

async fn follow(
    mut cursor: Cursor,
    options: &LogOptions,
    sender: &mpsc::Sender<LogLines>,
    run: &Run,
    watch: &AsyncFd<std::os::fd::OwnedFd>,
) -> std::io::Result<()> {
    loop {
        // Asked before the read: what was written before the end is then read for sure.
        let has_ended = *run.progress.borrow() == RunProgress::TornDown;
        loop {
            let (lines, state) = piece(&mut cursor, options)?;
            if !lines.is_empty() && sender.send(lines).await.is_err() {
                return Ok(());
            }
            match state {
                State::More => {}
                State::NoMoreYet => break,
                State::Over => return Ok(()),
            }
        }
        if has_ended {
            return Ok(());
        }
        tokio::select! {
            ready = watch.readable() => drain(&mut ready?)?,
            () = run.reached(RunProgress::TornDown) => {}
            () = sender.closed() => return Ok(()),
            () = until(options.until) => return Ok(()),
        }
    }
}

async fn until(time: Option<Timestamp>) {
    let Some(time) = time else { return std::future::pending().await };
    let nanos = u64::try_from(time.0.saturating_sub(Timestamp::now().0)).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_nanos(nanos)).await;
}

/// What the notifications say does not matter, only that there were some.
fn drain(ready: &mut tokio::io::unix::AsyncFdReadyGuard<'_, std::os::fd::OwnedFd>) -> std::io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        match rustix::io::read(ready.get_inner(), &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => {
                ready.clear_ready();
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What comes after a piece.
#[derive(Debug, PartialEq, Eq)]
enum State {
    More,
    /// At the present end of the log.
    NoMoreYet,
    /// All later lines are beyond `until`.
    Over,
}

/// The wanted ones of the next lines.
fn piece(cursor: &mut Cursor, options: &LogOptions) -> std::io::Result<(LogLines, State)> {
    let mut lines = LogLines::default();
    while lines.text_bytes() < PIECE_BYTES && lines.len() < PIECE_LINES {
        let Some(line) = cursor.next()? else { return Ok((lines, State::NoMoreYet)) };
        match wanted(line, options) {
            Wanted::End => return Ok((lines, State::Over)),
            Wanted::No => {}
            Wanted::Yes => lines.push(line),
        }
    }
    Ok((lines, State::More))
}

enum Wanted {
    Yes,
    No,
    /// This line and all later ones are beyond `until`.
    End,
}

fn wanted(line: LogLine<'_>, options: &LogOptions) -> Wanted {
    if options.until.is_some_and(|until| line.time > until) {
        return Wanted::End;
    }
    let is_stream = if line.is_stderr { options.stderr } else { options.stdout };
    if is_stream && options.since.is_none_or(|since| line.time >= since) { Wanted::Yes } else { Wanted::No }
}
