//! Which pod a container belongs to: containers of one group share one shim (shim v2, "Shim grouping").
//!
//! The annotations are those of the field: the first that is there counts.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::Environment;

const ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
const CONFIG_BYTES_MAX: u64 = 16 << 20;

#[derive(serde::Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// As [`of_bundle`]; our own engine has a shim for each of its containers, and nothing needs to be read then.
pub(crate) fn of(environment: &Environment, bundle: &Path) -> Option<String> {
    if environment.events.is_some() { None } else { of_bundle(bundle) }
}

/// `None`: the container has a shim for itself. A document that cannot be read is Create's to complain of.
fn of_bundle(bundle: &Path) -> Option<String> {
    let mut json = Vec::new();
    std::fs::File::open(bundle.join("config.json")).ok()?.take(CONFIG_BYTES_MAX).read_to_end(&mut json).ok()?;
    // Most documents have none: then nothing needs to be parsed.
    if !ANNOTATIONS.iter().any(|key| memchr::memmem::find(&json, key.as_bytes()).is_some()) {
        return None;
    }
    let Annotated { mut annotations } = serde_json::from_slice(&json).ok()?;
    ANNOTATIONS.iter().find_map(|key| annotations.remove(*key)).filter(|group| !group.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-143: what groups containers.
    #[test]
    fn s143_groups() {
        let dir = tempfile::tempdir().unwrap();
        let check = |json: &str| {
            std::fs::write(dir.path().join("config.json"), json).unwrap();
            of_bundle(dir.path())
        };
        assert_eq!(check(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).as_deref(), Some("pod"));
        assert_eq!(check(r#"{"annotations":{"io.containerd.runc.v2.group":"g"}}"#).as_deref(), Some("g"));
        assert_eq!(check(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":""}}"#), None);
        assert_eq!(check(r#"{"process":{}}"#), None);
        assert_eq!(of_bundle(&dir.path().join("none")), None);
    }
}
