//! Spans of starts: recorded per step, kept with the container, and for a while after it is gone.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use berth_types::{ContainerId, Party, Span, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

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

    fn find(&self, container_ref: &str) -> Option<(ContainerId, Vec<Span>)> {
        let removed = self.removed.lock();
        let fits = |id: &ContainerId, name: &str| name == container_ref || id.as_str().starts_with(container_ref);
        removed.iter().rev().find(|(id, name, _)| fits(id, name)).map(|(id, _, spans)| (id.clone(), spans.clone()))
    }
}

/// Spans, and what they need to be placed in the world's time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceReport {
    pub id: String,
    /// Wall clock minus `CLOCK_MONOTONIC`, nanoseconds.
    pub clock_offset_ns: i64,
    pub spans: Vec<Span>,
}

/// `<data>/containers/<id>/trace.json` (version 1): the trace of a start that asked for one, for questions after a restart of ours.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    #[serde(flatten)]
    report: TraceReport,
}

const KEPT_VERSION: u32 = 1;
/// A trace has some hundred spans of about 150 bytes.
const KEPT_BYTES_MAX: u64 = 1 << 20;

impl TraceReport {
    fn new(id: &str, spans: Vec<Span>) -> Self {
        let offset = i128::from(Timestamp::now().0) - i128::from(now_ns());
        Self { id: id.to_owned(), clock_offset_ns: i64::try_from(offset).unwrap_or(0), spans }
    }
}

impl Engine {
    /// The spans of the container's last start, also of one that was removed lately.
    pub async fn trace(&self, container_ref: &str) -> Result<Vec<Span>> {
        self.trace_report(container_ref).await.map(|report| report.spans)
    }

    /// The same, with what places them in time.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn trace_report(&self, container_ref: &str) -> Result<TraceReport> {
        let container = match self.find(container_ref) {
            Ok(container) => container,
            Err(error) => {
                let (id, spans) = self.inner.traces.find(container_ref).ok_or(error)?;
                return Ok(TraceReport::new(id.as_str(), spans));
            }
        };
        let spans = container.lock().spans.clone();
        if spans.is_empty()
            && let Some(kept) = self.kept_trace(&container.id)
        {
            return Ok(kept);
        }
        Ok(TraceReport::new(container.id.as_str(), spans))
    }

    fn trace_file(&self, id: &ContainerId) -> PathBuf {
        self.inner.paths.container(id).join("trace.json")
    }

    /// What an earlier daemon kept.
    fn kept_trace(&self, id: &ContainerId) -> Option<TraceReport> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.trace_file(id)).ok()?.take(KEPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        (kept.version == KEPT_VERSION).then_some(kept.report)
    }

    /// Adds steps of the container's, and keeps the trace with it when one was asked for.
    pub(crate) async fn add_spans(&self, container: &Arc<Container>, mut spans: Vec<Span>) {
        let is_kept = {
            let mut inner = container.lock();
            inner.spans.append(&mut spans);
            inner.record.config.trace && !inner.record.host.auto_remove && !inner.is_removed
        };
        if !is_kept {
            return;
        }
        let container = Arc::clone(container);
        let kept = self.blocking(move |engine| engine.keep_trace(&container)).await;
        if let Err(error) = kept {
            tracing::debug!("a trace is not kept: {error}");
        }
    }

    fn keep_trace(&self, container: &Container) -> Result<()> {
        let spans = container.lock().spans.clone();
        let kept = Kept { version: KEPT_VERSION, report: TraceReport::new(container.id.as_str(), spans) };
        let json = serde_json::to_vec(&kept)
            .map_err(|error| EngineError::internal(format!("cannot encode a trace: {error}")))?;
        let file = self.trace_file(&container.id);
        let next = file.with_extension("new");
        std::fs::write(&next, json)
            .and_then(|()| std::fs::rename(&next, &file))
            .map_err(|error| EngineError::io("write", &file, &error))
    }

    /// The steps of one exec, as far as it has come.
    ///
    /// # Errors
    /// `NotFound` when there is no such exec, or no longer.
    pub fn exec_trace(&self, exec_id: &str) -> Result<TraceReport> {
        Ok(TraceReport::new(exec_id, self.inner.execs.spans(exec_id)?))
    }
}

/// The container's process, from its start to now: what comes between the start's last step and the exit's first.
pub(crate) fn life_span(spans: &[Span]) -> Option<Span> {
    let is_start = |span: &&Span| span.party == Party::Engine && span.name == "task.start";
    let started = spans.iter().rfind(is_start)?;
    Some(span("process.run", "", started.start_ns.saturating_add(started.duration_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that version 1 wrote.
    #[test]
    fn reads_version_1() {
        let bytes = br#"{"version":1,"id":"abc","clock_offset_ns":5,"spans":[{"party":"engine","name":"task.start","start_ns":1,"duration_ns":2}]}"#;
        let kept: Kept = serde_json::from_slice(bytes).unwrap();
        assert_eq!((kept.version, kept.report.clock_offset_ns, kept.report.spans.len()), (1, 5, 1));
        assert_eq!(serde_json::to_vec(&kept).unwrap(), bytes);
        assert_eq!(life_span(&kept.report.spans).unwrap().start_ns, 3);
    }
}
