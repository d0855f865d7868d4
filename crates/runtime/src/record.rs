//! What is on disk of a container: all that later commands need, so that neither a changed nor a vanished bundle matters to a
//! container that exists (runtime-spec runtime, "Lifecycle" 2).
//!
//! Version 1 had neither namespaces nor hooks and read them from the bundle; it is brought to version 2 when it is read.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Hooks, Spec};
use berth_types::{ContainerId, Timestamp};

use crate::error::RuntimeError;
use crate::namespaces::Namespaces;
use crate::process::{Inherited, ProcessPlan, capability_names};
use crate::rdt::RdtGroup;
use crate::seccomp::Filter;
use crate::state::{StateDir, file_error};

/// `state.json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) version: u32,
    #[serde(deserialize_with = "id_of_runtime")]
    pub(crate) id: ContainerId,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) pid: u32,
    /// Clock ticks since boot, `/proc/PID/stat` field 22: tells a reused pid.
    pub(crate) pid_start: u64,
    /// Empty: the container has no group of its own.
    pub(crate) cgroup: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: u32,
    pub(crate) namespaces: Namespaces,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Hooks>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(crate) annotations: HashMap<String, String>,
    #[serde(flatten)]
    pub(crate) inherited: Inherited,
    /// The resctrl group, to be removed with the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<RdtGroup>,
}

/// An id is what runtimes take, which is more than what engines give.
fn id_of_runtime<'de, D: serde::Deserializer<'de>>(document: D) -> Result<ContainerId, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(document)?;
    ContainerId::of_runtime(&text).map_err(serde::de::Error::custom)
}

/// What version 1 held.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstRecord {
    #[serde(deserialize_with = "id_of_runtime")]
    id: ContainerId,
    bundle: PathBuf,
    pid: u32,
    pid_start: u64,
    cgroup: String,
    /// Seconds since 1970.
    created: i64,
    owner: u32,
}

#[derive(Debug, serde::Deserialize)]
struct VersionOnly {
    version: u32,
}

pub(crate) const RECORD_VERSION: u32 = 2;
const RECORD_MAX: u64 = 1 << 20;
const SPEC_MAX: u64 = 8 << 20;

impl Record {
    /// From the text of `state.json`; `directory` gets the filter that version 1 did not keep.
    pub(crate) fn parse(text: &[u8], path: &Path, directory: &StateDir) -> Result<Self, RuntimeError> {
        let bad = |problem: String| RuntimeError::BadState { path: path.display().to_string(), problem };
        let parsed = |error: serde_json::Error| bad(error.to_string());
        match serde_json::from_slice::<VersionOnly>(text).map_err(parsed)?.version {
            1 => Self::upgrade(serde_json::from_slice(text).map_err(parsed)?, directory),
            RECORD_VERSION => serde_json::from_slice(text).map_err(parsed),
            other => Err(bad(format!("version {other}"))),
        }
    }

    fn upgrade(first: FirstRecord, directory: &StateDir) -> Result<Self, RuntimeError> {
        let path = first.bundle.join("config.json");
        let text = read_bounded(&path, SPEC_MAX)?;
        let spec: Spec = serde_json::from_slice(&text)
            .map_err(|error| RuntimeError::Spec { field: "config.json", problem: error.to_string() })?;
        let linux = spec.linux().clone().unwrap_or_default();
        let annotations = spec.annotations().clone().unwrap_or_default();
        let process = spec.process().as_ref().map(|process| ProcessPlan::new(process, &annotations)).transpose()?;
        let names = capability_names(process.as_ref().and_then(|process| process.capabilities.as_ref()));
        if let Some(filter) = Filter::new(None, linux.seccomp().as_ref(), &names, None)? {
            directory.save_filter(&filter)?;
        }
        let root = spec.root().as_ref().map_or_else(PathBuf::new, |root| root.path().clone());
        let record = Self {
            version: RECORD_VERSION,
            id: first.id,
            rootfs: first.bundle.join(root),
            bundle: first.bundle,
            pid: first.pid,
            pid_start: first.pid_start,
            cgroup: first.cgroup,
            created: Timestamp(first.created.saturating_mul(1_000_000_000)),
            owner: first.owner,
            namespaces: Namespaces::of_spec(linux.namespaces().as_deref().unwrap_or_default())?,
            hooks: spec.hooks().clone(),
            annotations,
            inherited: Inherited {
                affinity: process.map(|process| process.affinity).unwrap_or_default(),
                ..Inherited::default()
            },
            rdt: None,
        };
        directory.save(&record)?;
        Ok(record)
    }
}

/// A file of ours, or of the caller's bundle.
pub(crate) fn read_bounded(path: &Path, size_max: u64) -> Result<Vec<u8>, RuntimeError> {
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(size_max).read_to_end(&mut text))
        .map_err(|source| file_error("read", path, source))?;
    Ok(text)
}

/// Largest `state.json` that is read, in bytes.
pub(crate) fn read_record(path: &Path) -> Result<Vec<u8>, RuntimeError> {
    read_bounded(path, RECORD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Namespace;

    #[test]
    fn version_1_is_brought_up_from_its_bundle() {
        let place = std::env::temp_dir().join(format!("berth-record-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let spec = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"annotations":{"a":"b"},
            "process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}},
            "hooks":{"poststop":[{"path":"/bin/true"}]},
            "linux":{"namespaces":[{"type":"pid"},{"type":"mount"}],
                "seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}}"#;
        std::fs::write(place.join("config.json"), spec).unwrap();
        let directory = StateDir::create(&place.join("state"), &"one".parse().unwrap()).unwrap();
        let bundle = serde_json::to_string(&place).unwrap();
        let text = format!(
            r#"{{"version":1,"id":"one","bundle":{bundle},"pid":7,"pidStart":8,"cgroup":"/berth/one","created":1700000000,
               "owner":3,"noNewKeyring":false}}"#
        );
        std::fs::write(directory.file("state.json"), text).unwrap();
        let record = directory.load().unwrap();
        assert_eq!((record.version, record.pid, record.owner), (2, 7, 3));
        assert_eq!(record.created.to_string(), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(record.rootfs, place.join("rootfs"));
        assert!(record.namespaces.is_new(Namespace::Pid) && !record.namespaces.is_new(Namespace::Network));
        assert_eq!(record.hooks.as_ref().unwrap().poststop().as_ref().unwrap().len(), 1);
        assert!(directory.load_filter().unwrap().is_some());
        // The second time it is read without the bundle.
        std::fs::remove_file(place.join("config.json")).unwrap();
        assert_eq!(directory.load().unwrap(), record);
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn other_versions_are_refused() {
        let place = std::env::temp_dir().join(format!("berth-record-x-{}", std::process::id()));
        let directory = StateDir::create(&place, &"one".parse().unwrap()).unwrap();
        for text in [r#"{"version":3}"#, "{}", "x", r#"{"version":2}"#] {
            std::fs::write(directory.file("state.json"), text).unwrap();
            assert!(matches!(directory.load(), Err(RuntimeError::BadState { .. })), "{text}");
        }
        std::fs::remove_dir_all(place).unwrap();
    }
}
