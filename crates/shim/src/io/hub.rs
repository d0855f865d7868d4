//! Fan-out of one process's output: its log, plain files, and the outlets of those attached now.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Stream;
use super::json_file::JsonFile;
use super::outlet::Outlet;
use super::readers::is_open_elsewhere;

#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Option<JsonFile>,
    /// Which streams go to the log.
    logged: [bool; 2],
    files: Vec<(Stream, File)>,
    outlets: Vec<Arc<Outlet>>,
    is_finished: bool,
}

impl Hub {
    pub(crate) fn set_log(&self, log: JsonFile, logged: [bool; 2]) {
        let mut state = self.lock();
        state.log = Some(log);
        state.logged = logged;
    }

    pub(crate) fn add_file(&self, stream: Stream, file: File) {
        self.lock().files.push((stream, file));
    }

    /// From now on it gets all output; after the end it is closed at once.
    pub(crate) fn add(&self, outlet: Arc<Outlet>) {
        let mut state = self.lock();
        if state.is_finished {
            outlet.finish();
        } else {
            state.outlets.push(outlet);
        }
    }

    pub(crate) fn deliver(&self, stream: Stream, data: &[u8]) {
        let mut state = self.lock();
        if state.logged[stream.index()]
            && let Some(log) = &mut state.log
        {
            log.write(stream, data);
        }
        // A file of another engine that cannot be written loses output, as the contract of `file://` has it.
        state.files.retain_mut(|(of, file)| *of != stream || file.write_all(data).is_ok());
        state.outlets.retain(|outlet| !outlet.is_closed());
        for outlet in state.outlets.iter().filter(|outlet| outlet.wants(stream)) {
            outlet.push(stream, data);
        }
    }

    /// Returns when every receiver of the stream has room.
    pub(crate) async fn room(&self, stream: Stream) {
        let mut number = 0;
        loop {
            let next = {
                let state = self.lock();
                state.outlets.iter().filter(|outlet| outlet.wants(stream)).nth(number).map(Arc::clone)
            };
            let Some(outlet) = next else { return };
            outlet.room().await;
            number += 1;
        }
    }

    /// Bytes that wait for readers of FIFOs; `None` when nobody reads through one.
    pub(crate) fn underway(&self) -> Option<u64> {
        let state = self.lock();
        state.outlets.iter().filter_map(|outlet| outlet.underway()).reduce(|sum, bytes| sum + bytes)
    }

    /// Somebody has a FIFO open that still holds something.
    pub(crate) fn has_fifo_reader(&self) -> bool {
        let outlets = self.lock().outlets.clone();
        let holding = outlets.iter().filter(|outlet| outlet.underway().is_some_and(|bytes| bytes > 0));
        holding.into_iter().any(|outlet| is_open_elsewhere(outlet.descriptor().get_ref()))
    }

    /// No more output of this stream.
    pub(crate) fn end(&self, stream: Stream) {
        if let Some(log) = &mut self.lock().log {
            log.end(stream);
        }
    }

    /// The process has ended and all its output was delivered or queued.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.is_finished = true;
        state.log = None;
        state.files.clear();
        for outlet in state.outlets.drain(..) {
            outlet.finish();
        }
    }

    /// There will be no output; whoever else holds the clients' streams may use them.
    pub(crate) fn let_go(&self) {
        let mut state = self.lock();
        state.is_finished = true;
        state.log = None;
        state.files.clear();
        for outlet in state.outlets.drain(..) {
            outlet.let_go();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Hub {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().outlets.iter().map(|outlet| outlet.queued_bytes()).sum()
    }
}
