//! Names of API objects as paths, and small readings of their JSON.

use serde_json::{Map, Value};

use crate::client::Query;
use crate::failure::{Failure, Outcome};

/// `/containers/{name}{suffix}`.
pub(crate) fn container_path(name: &str, suffix: &str) -> Outcome<String> {
    path("containers", "container", name, suffix)
}

/// `/images/{name}{suffix}`; the name keeps its slashes.
pub(crate) fn image_path(name: &str, suffix: &str) -> Outcome<String> {
    path("images", "image", name, suffix)
}

pub(crate) fn network_path(name: &str, suffix: &str) -> Outcome<String> {
    path("networks", "network", name, suffix)
}

pub(crate) fn volume_path(name: &str, suffix: &str) -> Outcome<String> {
    path("volumes", "volume", name, suffix)
}

fn path(collection: &str, kind: &str, name: &str, suffix: &str) -> Outcome<String> {
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Failure::new(format!("invalid {kind} name {name:?}")));
    }
    Ok(format!("/{collection}/{}{suffix}", Query::segment(name)))
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

pub(crate) fn integer(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// Bytes; -1 ("not computed") counts as none.
pub(crate) fn size(value: &Value, field: &str) -> u64 {
    u64::try_from(integer(value, field)).unwrap_or(0)
}

pub(crate) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn labels(value: &Value) -> Map<String, Value> {
    value["Labels"].as_object().cloned().unwrap_or_default()
}

/// `a=b,c=d`.
pub(crate) fn joined_labels(labels: &Map<String, Value>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",")
}

/// An id as people see it: twelve digits, without `sha256:`.
pub(crate) fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(container_path("/web", "/json").unwrap(), "/containers/web/json");
        assert_eq!(image_path("a/b:c", "").unwrap(), "/images/a/b:c");
        assert_eq!(container_path("a b?", "").unwrap(), "/containers/a%20b%3F");
        for bad in ["", "/", "a/../b", "..", "a//b"] {
            assert!(container_path(bad, "").is_err(), "{bad}");
        }
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
