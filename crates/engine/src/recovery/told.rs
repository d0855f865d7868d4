//! What the event log says was told before the crash, so that each event is told once: not lost between a change and its telling, not
//! repeated when the telling was done and the record of it was not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use berth_core::events::Origin;
use berth_core::{Event, EventLog, Task};
use berth_shim_client::ExitStatus;
use berth_types::{ContainerId, Timestamp};

use crate::container::Container;
use crate::engine::Engine;
use crate::images::COMMIT_PAUSE;

/// Events looked back at: what a crash left untold is at the end of the log.
const LOOKED_BACK: u64 = 4096;
/// The events that make up a container's life, in their legal order.
const LIFE: [&str; 4] = ["create", "start", "die", "destroy"];

/// The last event of each container's life, of those looked back at.
#[derive(Debug)]
pub(super) struct Told {
    last: HashMap<String, Arc<Event>>,
    /// Execs whose end was told.
    ended_execs: HashSet<String>,
    /// Nothing is known of what happened before; `None`: the log was read from its beginning.
    since: Option<Timestamp>,
}

impl Told {
    pub(super) fn read(log: &EventLog) -> Self {
        let after = log.last_sequence().saturating_sub(LOOKED_BACK);
        let mut subscription = log.subscribe(Origin::After(after));
        let mut told = Self { last: HashMap::new(), ended_execs: HashSet::new(), since: None };
        while let Some(event) = subscription.next_kept() {
            if told.since.is_none() && event.sequence > 1 {
                told.since = Some(event.time);
            }
            if event.action == "exec_die" {
                told.ended_execs.extend(event.attributes.get("execID").cloned());
            }
            if event.kind == "container" && LIFE.contains(&event.action.as_str()) {
                told.last.insert(event.actor_id.clone(), event);
            }
        }
        told
    }

    pub(super) fn exec_has_died(&self, exec_id: &str) -> bool {
        self.ended_execs.contains(exec_id)
    }

    fn last(&self, id: &ContainerId) -> Option<&Event> {
        self.last.get(id.as_str()).map(Arc::as_ref)
    }

    /// Something that happened then would be among the events looked back at.
    fn covers(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time > since)
    }

    /// Its end was told at `ended_at` or later.
    pub(super) fn has_died(&self, id: &ContainerId, ended_at: Timestamp) -> bool {
        self.last(id).is_some_and(|event| matches!(event.action.as_str(), "die" | "destroy") && event.time >= ended_at)
    }

    /// When its last run began, if its end was not told: the record of it may not have reached the disk.
    pub(super) fn start(&self, id: &ContainerId) -> Option<Timestamp> {
        self.last(id).filter(|event| event.action == "start").map(|event| event.time)
    }

    /// Exit code and time of its last run, if its end was told.
    pub(super) fn end(&self, id: &ContainerId) -> Option<(i32, Timestamp)> {
        let event = self.last(id).filter(|event| event.action == "die")?;
        Some((event.attributes.get("exitCode")?.parse().ok()?, event.time))
    }

    /// The last event of a container that was told of and whose end was not.
    pub(super) fn undestroyed(&self, id: &str) -> Option<&Event> {
        self.last.get(id).map(Arc::as_ref).filter(|event| event.action != "destroy")
    }
}

impl Engine {
    pub(super) fn tell_missed_create(&self, container: &Container, told: &Told) {
        let record = container.record();
        if told.last(&record.id).is_none() && told.covers(record.created) {
            self.emit_container(&record, "create", &[]);
        }
    }

    /// `exit`: when it has ended already.
    pub(super) fn tell_missed_start(&self, container: &Container, exit: Option<&ExitStatus>, told: &Told) {
        let record = container.record();
        let is_told = match told.last(&record.id) {
            Some(event) => match event.action.as_str() {
                "start" => true,
                // The end of this run was told, or that of the run before.
                "die" => exit.is_some_and(|exit| event.time >= exit.exited_at),
                _ => false,
            },
            None => !told.covers(record.created),
        };
        if !is_told {
            self.emit_container(&record, "start", &[]);
        }
    }

    /// An earlier daemon was killed while it committed: nobody else would resume the container.
    pub(super) async fn resume_after_commit(&self, container: &Container, task: &Task) {
        let mark = task.bundle().file(COMMIT_PAUSE);
        if !mark.exists() {
            return;
        }
        if task.phase() == berth_core::Phase::Paused
            && let Err(error) = task.resume().await
        {
            tracing::error!(container_id = %container.id, "cannot resume after a commit: {}", berth_types::report(&error));
            return;
        }
        if let Err(error) = std::fs::remove_file(&mark) {
            tracing::warn!(container_id = %container.id, %error, "cannot remove the mark of a commit");
        }
    }

    /// A removal that was cut short after its last trace: only the telling is left to do.
    pub(super) fn tell_missed_destroy(&self, id: &str, told: &Told) {
        if let Some(event) = told.undestroyed(id) {
            self.emit("container", "destroy", id, event.attributes.clone());
        }
    }
}
