//! Spans of starts: recorded per step, kept with the container, and for a while after it is gone.

use std::collections::VecDeque;

use berth_types::{ContainerId, Party, Span};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::error::Result;

/// Traces of removed containers that are kept in memory.
const KEPT_MAX: usize = 64;

pub(crate) use berth_sys::clock::monotonic_ns as now_ns;

/// A finished step of the engine's.
pub(crate) fn span(name: &str, object: impl Into<String>, start_ns: u64) -> Span {
    let duration_ns = now_ns().saturating_sub(start_ns);
    Span { party: Party::Engine, name: name.to_owned(), object: object.into(), start_ns, duration_ns }
}

#[derive(Debug, Default)]
pub(crate) struct Traces {
    removed: Mutex<VecDeque<(ContainerId, String, Vec<Span>)>>,
}

impl Traces {
    pub(crate) fn keep(&self, id: ContainerId, name: String, spans: Vec<Span>) {
        let mut removed = self.removed.lock();
        if removed.len() >= KEPT_MAX {
            removed.pop_front();
        }
        removed.push_back((id, name, spans));
    }

    fn find(&self, container_ref: &str) -> Option<Vec<Span>> {
        let removed = self.removed.lock();
        let fits = |id: &ContainerId, name: &str| name == container_ref || id.as_str().starts_with(container_ref);
        removed.iter().rev().find(|(id, name, _)| fits(id, name)).map(|(_, _, spans)| spans.clone())
    }
}

impl Engine {
    /// The spans of the container's last start, also of one that was removed lately.
    pub async fn trace(&self, container_ref: &str) -> Result<Vec<Span>> {
        match self.find(container_ref) {
            Ok(container) => Ok(container.lock().spans.clone()),
            Err(error) => self.inner.traces.find(container_ref).ok_or(error),
        }
    }
}
