//! A device filter as `DevicePolicy` and `DeviceAllow`, as far as those two can say it.

use crate::dbus::Value;
use crate::device::{DeviceFilter, DeviceKind, DeviceRule};

use super::property::Property;

/// `None`: systemd cannot say this filter (it knows no denials, and wildcards only by the names of drivers).
pub(super) fn properties(filter: &DeviceFilter, drivers: &str) -> Option<[Property; 3]> {
    if filter.default_allow {
        return filter.exceptions.is_empty().then(|| policy("auto", Vec::new()));
    }
    let allowed: Option<Vec<(String, String)>> =
        filter.exceptions.iter().map(|rule| Some((node(rule, drivers)?, rule.access.to_string()))).collect();
    Some(policy("strict", allowed?))
}

/// Everything is allowed as far as systemd goes; for filters that we carry out ourselves.
pub(super) fn open() -> [Property; 3] {
    policy("auto", Vec::new())
}

/// An empty list first: it takes back what was allowed before.
fn policy(name: &str, allowed: Vec<(String, String)>) -> [Property; 3] {
    [
        ("DevicePolicy", Value::Text(name.to_owned())),
        ("DeviceAllow", Value::TextPairs(Vec::new())),
        ("DeviceAllow", Value::TextPairs(allowed)),
    ]
}

/// `/dev/char/1:3` (taken by its numbers, the file need not exist), `char-pts`, `char-*`.
fn node(rule: &DeviceRule, drivers: &str) -> Option<String> {
    let kind = if rule.kind == DeviceKind::Block { "block" } else { "char" };
    match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => driver(rule.kind, major, drivers).map(|name| format!("{kind}-{name}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

/// The name in `/proc/devices` that stands for one major number and for no other.
fn driver(kind: DeviceKind, major: u32, drivers: &str) -> Option<&str> {
    let (chars, blocks) = drivers.split_once("Block devices:").unwrap_or((drivers, ""));
    let list = if kind == DeviceKind::Block { blocks } else { chars };
    let entries = || {
        list.lines().filter_map(|line| {
            let (number, name) = line.trim().split_once(' ')?;
            Some((number.parse::<u32>().ok()?, name))
        })
    };
    let plain = |name: &str| !name.is_empty() && !name.contains(['*', '?', '[', '/', '\\']);
    let mut names = entries().filter(|(number, name)| *number == major && plain(name)).map(|(_, name)| name);
    names.find(|name| entries().all(|(number, other)| other != *name || number == major))
}
