//! Spans of the shim's own steps, and `<bundle>/trace.json` when the container's annotations ask for it.

use std::path::Path;

use berth_types::span::exec_trace_file;
use berth_types::{Party, Span};

use crate::log;

const FILE: &str = "trace.json";

/// All spans of a task so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) spans: Vec<Span>,
    pub(super) is_written: bool,
}

pub(super) use berth_sys::clock::monotonic_ns as now_ns;

impl Trace {
    /// Adds the shim's own span for what began at `start_ns`, and stores all. A trace never fails what it watches.
    pub(super) fn finish(&mut self, name: &str, object: &str, start_ns: u64, bundle: &Path) {
        if !self.is_written {
            self.spans.clear();
            return;
        }
        self.spans.push(own_span(name, object, start_ns));
        store(&self.spans, &bundle.join(FILE));
    }
}

/// Spans of an exec go into a file of their own, when the engine has put an empty one there.
pub(super) fn finish_exec(mut spans: Vec<Span>, exec_id: &str, start_ns: u64, bundle: &Path) {
    let file = bundle.join(exec_trace_file(exec_id));
    if file.exists() {
        spans.push(own_span("task.exec", exec_id, start_ns));
        store(&spans, &file);
    }
}

pub(super) fn own_span(name: &str, object: &str, start_ns: u64) -> Span {
    let duration_ns = now_ns().saturating_sub(start_ns);
    Span { party: Party::Shim, name: name.to_owned(), object: object.to_owned(), start_ns, duration_ns }
}

fn store(spans: &[Span], file: &Path) {
    let stored = serde_json::to_vec(spans).map_err(std::io::Error::from).and_then(|json| {
        let next = file.with_extension("new");
        std::fs::write(&next, json)?;
        std::fs::rename(&next, file)
    });
    if let Err(error) = stored {
        log::warn(&format!("cannot write {}: {error}", file.display()));
    }
}
