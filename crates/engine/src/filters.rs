//! Docker's filters (pure): a map from key to values; values of one key are alternatives, keys must all fit (labels: each must fit).

use std::collections::BTreeMap;

use berth_types::{ErrorClass, Timestamp};

use crate::api::{ContainerView, Event, Filters, Status};
use crate::error::{EngineError, Result};

pub(crate) const CONTAINER_KEYS: [&str; 14] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
];
pub(crate) const EVENT_KEYS: [&str; 12] = [
    "action",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "scope",
    "service",
    "type",
    "volume",
];
pub(crate) const IMAGE_KEYS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];
pub(crate) const PRUNE_KEYS: [&str; 4] = ["dangling", "label", "label!", "until"];

/// # Errors
/// `InvalidArgument` for a key nobody knows.
pub(crate) fn check(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str()) && key.as_str() != "volume") {
        Some(key) => Err(EngineError::new(ErrorClass::InvalidArgument, format!("invalid filter '{key}'"))
            .with_hint(format!("known are {}", known.join(", ")))),
        None => Ok(()),
    }
}

fn any(filters: &Filters, key: &str, fits: impl Fn(&str) -> bool) -> bool {
    filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
}

/// Every asked label must be there, with its value when one is given.
pub(crate) fn labels_fit(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let fits = |wanted: &String| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    };
    filters.get("label").into_iter().flatten().all(fits) && !filters.get("label!").into_iter().flatten().any(fits)
}

/// Values checked once, with what `before` and `since` mean.
#[derive(Debug, Default)]
pub(crate) struct ContainerFilter {
    filters: Filters,
    pub(crate) before: Option<Timestamp>,
    pub(crate) since: Option<Timestamp>,
    /// Ids and names an `ancestor` stands for: (image id, resolved).
    pub(crate) ancestors: Option<Vec<String>>,
}

impl ContainerFilter {
    /// # Errors
    /// `InvalidArgument` for keys and values nobody knows.
    pub(crate) fn parse(filters: &Filters) -> Result<Self> {
        check(filters, &CONTAINER_KEYS)?;
        for status in filters.get("status").into_iter().flatten() {
            if !matches!(
                status.as_str(),
                "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead"
            ) {
                return Err(EngineError::invalid(format!("invalid filter 'status={status}'"))
                    .with_hint("known are created, restarting, running, removing, paused, exited and dead"));
            }
        }
        for exited in filters.get("exited").into_iter().flatten() {
            if exited.parse::<i32>().is_err() {
                return Err(EngineError::invalid(format!("invalid filter 'exited={exited}': not an exit code")));
            }
        }
        for value in filters.get("is-task").into_iter().flatten() {
            if !matches!(value.as_str(), "true" | "false" | "1" | "0") {
                return Err(EngineError::invalid(format!("invalid filter 'is-task={value}': true or false")));
            }
        }
        for health in filters.get("health").into_iter().flatten() {
            if !matches!(health.as_str(), "starting" | "healthy" | "unhealthy" | "none") {
                return Err(EngineError::invalid(format!("invalid filter 'health={health}'")));
            }
        }
        Ok(Self { filters: filters.clone(), ..Self::default() })
    }

    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.filters.get(key).map_or(&[], Vec::as_slice)
    }

    /// A status or exit code is asked for: stopped containers count without `--all`.
    pub(crate) fn wants_stopped(&self) -> bool {
        ["status", "exited"].iter().any(|key| !self.values(key).is_empty())
    }

    pub(crate) fn fits(&self, view: &ContainerView) -> bool {
        let f = &self.filters;
        let ports = || view.network.ports.keys();
        any(f, "id", |value| view.id.as_str().starts_with(value))
            && any(f, "name", |value| name_fits(&view.name, value))
            && any(f, "status", |value| status_text(view.status) == value)
            && any(f, "exited", |value| {
                let has_ended = view.status == Status::Exited && view.finished_at.is_some();
                has_ended && value.parse() == Ok(view.exit_code)
            })
            && any(f, "network", |value| network_fits(view, value))
            && any(f, "publish", |value| {
                ports().any(|port| port_fits(port, value) && !view.network.ports[port].is_empty())
            })
            && any(f, "expose", |value| ports().chain(&view.config.exposed_ports).any(|port| port_fits(port, value)))
            && any(f, "health", |value| value == "none")
            && any(f, "isolation", |value| value == "default")
            && any(f, "is-task", |value| matches!(value, "false" | "0"))
            && any(f, "volume", |value| view.mounts.iter().any(|m| m.source == value || m.destination == value))
            && labels_fit(f, &view.config.labels)
            && self.before.is_none_or(|before| view.created < before)
            && self.since.is_none_or(|since| view.created > since)
            && self
                .ancestors
                .as_ref()
                .is_none_or(|ids| ids.iter().any(|id| *id == view.image_id.to_string() || *id == view.image_name))
    }
}

/// Docker matches names as a regular expression; we take a substring with optional `^` and `$`.
fn name_fits(name: &str, pattern: &str) -> bool {
    let (pattern, at_start) = pattern.strip_prefix('^').map_or((pattern, false), |rest| (rest, true));
    let (pattern, at_end) = pattern.strip_suffix('$').map_or((pattern, false), |rest| (rest, true));
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    match (at_start, at_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

pub(crate) const fn status_text(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Removing => "removing",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

fn network_fits(view: &ContainerView, value: &str) -> bool {
    view.network.mode == value || (!value.is_empty() && view.network.network_id.starts_with(value))
}

/// `80`, `80/tcp`, `8000-8010/udp` against `80/tcp`.
fn port_fits(port: &str, wanted: &str) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let Some((number, own_protocol)) = port.split_once('/') else { return false };
    let within = |n: u16| first.parse::<u16>().is_ok_and(|f| f <= n) && last.parse::<u16>().is_ok_and(|l| n <= l);
    own_protocol == protocol && number.parse::<u16>().is_ok_and(within)
}

/// Whether an event is wanted.
pub(crate) fn event_fits(event: &Event, filters: &Filters) -> bool {
    let attribute = |key: &str| event.attributes.get(key).map(String::as_str);
    let is_kind = |kind: &str| event.kind == kind;
    let actor = |kind: &'static str, value: &str| {
        is_kind(kind)
            && (event.actor_id == value
                || attribute("name") == Some(value)
                || (!value.is_empty() && event.actor_id.starts_with(value)))
    };
    let action = |value: &str| event.action == value || event.action.split(':').next() == Some(value);
    any(filters, "type", |value| event.kind == value)
        && any(filters, "event", action)
        && any(filters, "action", action)
        && any(filters, "scope", |value| value == "local")
        && any(filters, "container", |value| actor("container", value))
        && any(filters, "image", |value| {
            let image = if is_kind("image") { attribute("name") } else { attribute("image") };
            (is_kind("image") && event.actor_id == value)
                || image.is_some_and(|i| i == value || i.split(':').next() == Some(value))
        })
        && any(filters, "network", |value| {
            actor("network", value) || (is_kind("network") && attribute("container") == Some(value))
        })
        && any(filters, "daemon", |value| {
            is_kind("daemon") && (event.actor_id == value || attribute("name") == Some(value))
        })
        && any(filters, "volume", |value| actor("volume", value))
        && any(filters, "node", |_| false)
        && any(filters, "service", |_| false)
        && labels_fit(filters, &event.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &[&str])]) -> Filters {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())).collect()
    }

    fn event(kind: &str, action: &str) -> Event {
        Event {
            sequence: 1,
            time: Timestamp(0),
            kind: kind.into(),
            action: action.into(),
            actor_id: "abc123".into(),
            attributes: [("name", "web"), ("image", "busybox:1"), ("env", "test")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            pid: 0,
            envelope: None,
        }
    }

    #[test]
    fn events() {
        let die = event("container", "die");
        let fits = |pairs: &[(&str, &[&str])]| event_fits(&die, &filters(pairs));
        assert!(fits(&[]));
        assert!(fits(&[("type", &["image", "container"]), ("event", &["die"])]));
        assert!(!fits(&[("type", &["image"])]));
        assert!(
            fits(&[("container", &["web"])]) && fits(&[("container", &["abc"])]) && !fits(&[("container", &["db"])])
        );
        assert!(fits(&[("image", &["busybox"])]) && fits(&[("image", &["busybox:1"])]));
        assert!(
            fits(&[("label", &["env=test"])]) && fits(&[("label", &["env"])]) && !fits(&[("label", &["env", "other"])])
        );
        assert!(event_fits(&event("container", "exec_start: ls"), &filters(&[("event", &["exec_start"])])));
        assert!(check(&filters(&[("nonsense", &["x"])]), &EVENT_KEYS).is_err());
    }

    #[test]
    fn values() {
        assert!(name_fits("web-1", "web") && name_fits("web-1", "^web-1$") && !name_fits("web-1", "^eb"));
        assert!(port_fits("80/tcp", "80") && port_fits("80/tcp", "70-90/tcp") && !port_fits("80/tcp", "80/udp"));
        for bad in [("status", "gone"), ("exited", "x"), ("is-task", "maybe"), ("health", "ill"), ("nope", "1")] {
            assert!(ContainerFilter::parse(&filters(&[(bad.0, &[bad.1])])).is_err(), "{bad:?}");
        }
        assert!(ContainerFilter::parse(&filters(&[("status", &["exited"])])).unwrap().wants_stopped());
    }
}
