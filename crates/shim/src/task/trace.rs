//! Spans of the shim's own steps, and `<bundle>/trace.json` when the container's annotations ask for it.

use std::path::Path;

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
        let duration_ns = now_ns().saturating_sub(start_ns);
        self.spans.push(Span {
            party: Party::Shim,
            name: name.to_owned(),
            object: object.to_owned(),
            start_ns,
            duration_ns,
        });
        let stored = serde_json::to_vec(&self.spans).map_err(std::io::Error::from).and_then(|json| {
            let next = bundle.join(".trace.json.new");
            std::fs::write(&next, json)?;
            std::fs::rename(&next, bundle.join(FILE))
        });
        if let Err(error) = stored {
            log::warn(&format!("cannot write {FILE}: {error}"));
        }
    }
}
