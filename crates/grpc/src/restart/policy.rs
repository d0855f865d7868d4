//! What labels ask for (pure).

use std::time::Duration;

use berth_containerd_api::containerd::v1::types::Status as TaskStatus;
use berth_types::Labels;

use super::PERIOD;

const STATUS: &str = "containerd.io/restart.status";
const POLICY: &str = "containerd.io/restart.policy";
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";
pub(super) const COUNT: &str = "containerd.io/restart.count";
pub(super) const LOG_URI: &str = "containerd.io/restart.loguri";

/// What the monitor knows, as introspection tells it.
pub(crate) const POLICIES: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Running,
    Stopped,
}

impl Wanted {
    pub(super) fn of(labels: &Labels) -> Option<Self> {
        match labels.get(STATUS).map(String::as_str) {
            Some("running") => Some(Self::Running),
            Some("stopped") => Some(Self::Stopped),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    NoTask,
    /// With the exit status, when it has stopped.
    Task(TaskStatus, u32),
}

pub(super) fn count(labels: &Labels) -> u32 {
    labels.get(COUNT).and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// What is to be done now. `unchanged_for`: a client makes a container, then its task, then starts it; it is not overtaken.
pub(super) fn due(labels: &Labels, seen: Seen, unchanged_for: Duration) -> Option<Wanted> {
    let wanted = Wanted::of(labels)?;
    let is_due = match (wanted, seen) {
        (Wanted::Stopped, Seen::NoTask | Seen::Task(TaskStatus::Stopped, _)) => false,
        (Wanted::Stopped, Seen::Task(..)) => true,
        (Wanted::Running, Seen::NoTask | Seen::Task(TaskStatus::Created, _)) => {
            unchanged_for >= PERIOD && starts_after(labels, 0)
        }
        (Wanted::Running, Seen::Task(TaskStatus::Stopped, code)) => starts_after(labels, code),
        (Wanted::Running, Seen::Task(..)) => false,
    };
    is_due.then_some(wanted)
}

/// Whether the policy wants a start after such an end. One that cannot be read wants none.
fn starts_after(labels: &Labels, exit_status: u32) -> bool {
    let label = |key| labels.get(key).map_or("", String::as_str);
    let (name, max) = match label(POLICY).split_once(':') {
        Some((name, max)) => (name, Some(max)),
        None => (label(POLICY), None),
    };
    match (name, max) {
        ("" | "always", None) => true,
        ("unless-stopped", None) => !matches!(label(EXPLICITLY_STOPPED), "true" | "1" | "t" | "T" | "TRUE" | "True"),
        ("on-failure", None) => exit_status != 0,
        ("on-failure", Some(max)) => {
            max.parse::<u32>().is_ok_and(|max| exit_status != 0 && (max == 0 || count(labels) < max))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(words: &[(&str, &str)]) -> Labels {
        words.iter().map(|(key, value)| (format!("containerd.io/restart.{key}"), (*value).to_owned())).collect()
    }

    fn after(words: &[(&str, &str)], code: u32) -> Option<Wanted> {
        due(&labels(words), Seen::Task(TaskStatus::Stopped, code), Duration::ZERO)
    }

    #[test]
    fn policies_are_containerds() {
        let running = ("status", "running");
        let yes = Some(Wanted::Running);
        assert_eq!(after(&[("policy", "always")], 1), None, "not watched");
        assert_eq!(after(&[running], 0), yes);
        assert_eq!(after(&[running, ("policy", "always"), ("explicitly-stopped", "true")], 0), yes);
        assert_eq!(after(&[running, ("policy", "unless-stopped")], 0), yes);
        assert_eq!(after(&[running, ("policy", "unless-stopped"), ("explicitly-stopped", "true")], 0), None);
        assert_eq!(after(&[running, ("policy", "on-failure")], 0), None);
        assert_eq!(after(&[running, ("policy", "on-failure:2"), ("count", "1")], 3), yes);
        assert_eq!(after(&[running, ("policy", "on-failure:2"), ("count", "2")], 3), None);
        for policy in ["no", "always:3", "on-failure:x", "sometimes"] {
            assert_eq!(after(&[running, ("policy", policy)], 1), None, "{policy}");
        }
    }

    #[test]
    fn clients_are_not_overtaken() {
        let running = labels(&[("status", "running")]);
        let (young, old) = (Duration::from_secs(9), PERIOD);
        for seen in [Seen::NoTask, Seen::Task(TaskStatus::Created, 0)] {
            assert_eq!(due(&running, seen, young), None);
            assert_eq!(due(&running, seen, old), Some(Wanted::Running));
        }
        for status in [TaskStatus::Running, TaskStatus::Paused, TaskStatus::Pausing] {
            assert_eq!(due(&running, Seen::Task(status, 0), old), None);
        }
        let stopped = labels(&[("status", "stopped")]);
        assert_eq!(due(&stopped, Seen::Task(TaskStatus::Running, 0), young), Some(Wanted::Stopped));
        assert_eq!(due(&stopped, Seen::NoTask, old), None);
        assert_eq!(due(&labels(&[("status", "created")]), Seen::NoTask, old), None);
    }
}
