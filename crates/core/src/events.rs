//! The event log: every state change exactly once, numbered, on disk as JSON lines, replayable, and live to subscribers.
//!
//! ```text
//! <data-root>/events/<first sequence, 20 digits>.jsonl     one event per line, oldest segment deleted beyond the bound
//! ```
//! Lock order: the one mutex here is a leaf; it is held for one append (a write to the page cache and a push per subscriber).
//! A reader that falls behind is closed with [`Overrun`], never silently skipped: it resumes by its last sequence number.
//! Appends are not flushed to disk: after a power loss the newest events may be missing, their numbers are then given again.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_types::{Classify, ErrorClass, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::objects::AnyValue;
use segment::{Segments, SegmentsReader};

/// Docker's event message; `sequence` is ours, the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub sequence: u64,
    pub time: Timestamp,
    /// `container|image|network|daemon`
    pub kind: String,
    /// `create`, `start`, `die`, `exec_start: ls` …
    pub action: String,
    pub actor_id: String,
    pub attributes: BTreeMap<String, String>,
    /// Host pid of the process it is about; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// The event as containerd's API knows it, when it came from there (a client, a shim) and not from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Box<Envelope>>,
}

/// Kind of events that Docker's API has no word for; only containerd's API shows them.
pub const CONTAINERD_KIND: &str = "containerd";

/// An event in containerd's terms: whose, what (`/tasks/start`), and its message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub namespace: String,
    pub topic: String,
    pub event: AnyValue,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(pid: &u32) -> bool {
    *pid == 0
}

/// What happened, before it gets its number and time.
#[derive(Debug, Clone, Default)]
pub struct Occurrence {
    pub kind: &'static str,
    pub action: String,
    pub actor_id: String,
    pub attributes: BTreeMap<String, String>,
    pub pid: u32,
    pub envelope: Option<Box<Envelope>>,
}

/// How much history is kept, and how far a live reader may fall behind.
#[derive(Debug, Clone, Copy)]
pub struct EventLimits {
    pub segment_bytes: u64,
    pub segments: usize,
    pub backlog_events: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { segment_bytes: 1 << 20, segments: 16, backlog_events: 4096 }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the event log at {}", .path.display())]
pub struct EventLogError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: std::io::Error,
}

impl Classify for EventLogError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }
}

/// The reader was too slow and has been cut off; events after its last one are still in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event reader fell too far behind and was closed; resume after sequence {after_sequence}")]
pub struct Overrun {
    pub after_sequence: u64,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Only what happens from now on.
    Now,
    /// Everything kept with a greater number.
    After(u64),
    /// Everything kept that happened at this time or later.
    Since(Timestamp),
}

/// The log of one data root.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    backlog_events: usize,
}

#[derive(Debug)]
struct Inner {
    segments: Segments,
    next_sequence: u64,
    subscribers: Vec<mpsc::Sender<Arc<Event>>>,
}

impl EventLog {
    /// Opens the log; a last line torn by a crash is cut off.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, limits: EventLimits) -> Result<Self, EventLogError> {
        let (segments, last_sequence) = Segments::open(dir, limits)?;
        let inner = Inner { segments, next_sequence: last_sequence + 1, subscribers: Vec::new() };
        Ok(Self { inner: Mutex::new(inner), backlog_events: limits.backlog_events })
    }

    /// Numbers, keeps and delivers an event. A disk that refuses the write does not stop the engine: the event is still
    /// delivered to live readers and the error is returned beside it, to be logged.
    pub fn append(&self, occurrence: Occurrence) -> (Arc<Event>, Result<(), EventLogError>) {
        let mut inner = self.inner.lock();
        let event = Arc::new(Event {
            sequence: inner.next_sequence,
            time: Timestamp::now(),
            kind: occurrence.kind.to_owned(),
            action: occurrence.action,
            actor_id: occurrence.actor_id,
            attributes: occurrence.attributes,
            pid: occurrence.pid,
            envelope: occurrence.envelope,
        });
        inner.next_sequence += 1;
        let kept = inner.segments.append(&event);
        inner.subscribers.retain(|subscriber| subscriber.try_send(Arc::clone(&event)).is_ok());
        (event, kept)
    }

    /// A reader: first what is kept from `origin` on, then live, without gap or repetition.
    pub fn subscribe(&self, origin: Origin) -> Subscription {
        let (sender, live) = mpsc::channel(self.backlog_events);
        let mut inner = self.inner.lock();
        inner.subscribers.push(sender);
        let last_sequence = inner.next_sequence - 1;
        let replay = match origin {
            Origin::Now => None,
            Origin::After(_) | Origin::Since(_) => Some(inner.segments.reader(origin, last_sequence)),
        };
        let last_sequence = match origin {
            Origin::Now => last_sequence,
            Origin::After(after) => after,
            Origin::Since(_) => 0,
        };
        Subscription { replay, live, last_sequence }
    }

    /// Live readers; one that has gone is noticed with the next event.
    pub fn subscribers(&self) -> usize {
        self.inner.lock().subscribers.len()
    }

    pub fn last_sequence(&self) -> u64 {
        self.inner.lock().next_sequence - 1
    }
}

/// A reader's place in the log.
#[derive(Debug)]
pub struct Subscription {
    replay: Option<SegmentsReader>,
    live: mpsc::Receiver<Arc<Event>>,
    last_sequence: u64,
}

impl Subscription {
    /// The next event that is already kept; `None` when only live ones can follow. Reads the page cache, does not wait.
    pub fn next_kept(&mut self) -> Option<Arc<Event>> {
        let event = self.replay.as_mut()?.next();
        match &event {
            Some(event) => self.last_sequence = event.sequence,
            None => self.replay = None,
        }
        event
    }

    /// The next event, waiting for it.
    ///
    /// # Errors
    /// [`Overrun`] when this reader was too slow.
    pub async fn next(&mut self) -> Result<Arc<Event>, Overrun> {
        if let Some(event) = self.next_kept() {
            return Ok(event);
        }
        let event = self.live.recv().await.ok_or(Overrun { after_sequence: self.last_sequence })?;
        self.last_sequence = event.sequence;
        Ok(event)
    }
}
