//! The document of a pod's own process: what the engine wrote, completed. Pure.
//!
//! An engine may give a whole `config.json` (a pause image's process with a root), one with namespaces alone, or none: then a pod has pid, ipc, uts
//! and mount namespaces of its own and the network namespace it is given; without one it is in the host's.

use std::collections::BTreeMap;

use berth_proto::protobuf::well_known_types::any::Any;
use serde_json::{Map, Value, json};

use super::pause;
use super::pod::PodConfig;
use crate::error::TaskError;

const POD_CONFIG: &str = "runtime.v1.PodSandboxConfig";
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const NETWORK: &str = "network";

/// What the engine says of a pod.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) namespace: &'a str,
    pub(super) id: &'a str,
    /// `config.json` of the bundle; empty: none.
    pub(super) config: &'a [u8],
    pub(super) options: Option<&'a Any>,
    /// Empty: none.
    pub(super) netns_path: &'a str,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A complete document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) json: Vec<u8>,
    /// Its process is [`pause::PROGRAM`].
    pub(super) is_pause: bool,
}

/// # Errors
/// `InvalidArgument` for a document or options that cannot be read, `Unimplemented` for a user namespace of a pod's own.
pub(super) fn complete(asked: Asked<'_>) -> Result<Document, TaskError> {
    let unread = |source| TaskError::Document { what: "config.json", source };
    let mut config = asked.config;
    let mut pod = PodConfig::default();
    if let Some(any) = asked.options.filter(|any| !any.value.is_empty()) {
        match any.type_url.as_str() {
            SPEC => config = &any.value,
            url if url.rsplit('/').next() == Some(POD_CONFIG) => {
                pod = PodConfig::parse(&any.value)
                    .map_err(|error| TaskError::Argument { what: "pod configuration", value: error.to_string() })?;
            }
            other => {
                return Err(TaskError::Argument { what: "type of the sandbox's options", value: other.to_owned() });
            }
        }
    }
    if pod.wants_user_ns {
        return Err(TaskError::Unimplemented { what: "a pod with a user namespace of its own" });
    }
    let mut document: Map<String, Value> = match config.iter().all(u8::is_ascii_whitespace) {
        true => Map::new(),
        false => serde_json::from_slice::<Option<_>>(config).map_err(unread)?.unwrap_or_default(),
    };
    document.entry("ociVersion").or_insert_with(|| json!("1.0.2"));
    let is_pause = document.get("process").is_none_or(Value::is_null);
    if is_pause {
        add_pause(&mut document);
    }
    let has_hostname = document.get("hostname").is_some();
    if !pod.hostname.is_empty() && !has_hostname && !pod.host_network {
        document.insert("hostname".to_owned(), json!(pod.hostname));
    }
    add_annotations(&mut document, pod.annotations.iter().chain(&asked.annotations));
    let linux = object(&mut document, "linux").ok_or_else(|| not_an_object("linux"))?;
    add_namespaces(linux, &pod, asked.netns_path)?;
    if !pod.sysctls.is_empty() {
        let sysctls = object(linux, "sysctl").ok_or_else(|| not_an_object("linux.sysctl"))?;
        sysctls.extend(pod.sysctls.into_iter().map(|(key, value)| (key, Value::String(value))));
    }
    let parent = if pod.cgroup_parent.is_empty() { asked.namespace } else { pod.cgroup_parent.as_str() };
    let cgroup = format!("/{}/{}", parent.trim_matches('/'), asked.id);
    linux.entry("cgroupsPath").or_insert_with(|| json!(cgroup));
    let json = serde_json::to_vec(&document).map_err(unread)?;
    Ok(Document { json, is_pause })
}

fn not_an_object(what: &'static str) -> TaskError {
    TaskError::Argument { what, value: "not an object".to_owned() }
}

/// A member that is an object, made if need be.
fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let member = map.entry(key).or_insert(Value::Null);
    if member.is_null() {
        *member = json!({});
    }
    member.as_object_mut()
}

/// Without rights, and with nothing to see but itself.
fn add_pause(document: &mut Map<String, Value>) {
    let process = json!({
        "user": {"uid": 65535, "gid": 65535},
        "args": [pause::PROGRAM],
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {},
        // As the kubelet has it for a pod's own process.
        "oomScoreAdj": -998,
    });
    document.insert("process".to_owned(), process);
    document.insert("root".to_owned(), json!({"path": "rootfs", "readonly": true}));
    let options = ["nosuid", "noexec", "nodev"];
    document.insert(
        "mounts".to_owned(),
        json!([
            {"destination": "/proc", "type": "proc", "source": "proc", "options": options},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ]),
    );
}

fn add_annotations<'a>(document: &mut Map<String, Value>, pairs: impl Iterator<Item = (&'a String, &'a String)>) {
    let mut pairs = pairs.peekable();
    if pairs.peek().is_some()
        && let Some(annotations) = object(document, "annotations")
    {
        annotations.extend(pairs.map(|(key, value)| (key.clone(), json!(value))));
    }
}

fn add_namespaces(linux: &mut Map<String, Value>, pod: &PodConfig, netns_path: &str) -> Result<(), TaskError> {
    if linux.get("namespaces").is_none_or(Value::is_null) {
        let own = [("pid", !pod.host_pid), ("ipc", !pod.host_ipc), ("uts", !pod.host_network), ("mount", true)];
        let own = own.iter().filter(|(_, is_own)| *is_own).map(|(name, _)| json!({"type": name}));
        linux.insert("namespaces".to_owned(), own.collect());
    }
    let namespaces = linux.get_mut("namespaces").and_then(Value::as_array_mut);
    let namespaces = namespaces.ok_or_else(|| not_an_object("linux.namespaces"))?;
    if !netns_path.is_empty() {
        namespaces.retain(|namespace| namespace["type"] != NETWORK);
        namespaces.push(json!({"type": NETWORK, "path": netns_path}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pod::tests::field;
    use super::*;

    fn document(config: &str, options: Option<&Any>, netns_path: &str) -> Value {
        let config = config.as_bytes();
        let asked = Asked { namespace: "n", id: "p", config, options, netns_path, ..Asked::default() };
        serde_json::from_slice(&complete(asked).unwrap().json).unwrap()
    }

    fn types(document: &Value) -> Vec<&str> {
        document["linux"]["namespaces"].as_array().unwrap().iter().map(|ns| ns["type"].as_str().unwrap()).collect()
    }

    /// S-140: a pod of which nothing but its network is said, and what a document says beyond.
    #[test]
    fn s140_documents() {
        for empty in ["", "null", "{}", " \n"] {
            let document = document(empty, None, "/run/netns/x");
            assert_eq!(types(&document), ["pid", "ipc", "uts", "mount", "network"], "{empty:?}");
            assert_eq!(document["linux"]["namespaces"][4]["path"], "/run/netns/x");
            assert_eq!(
                (&document["process"]["args"][0], &document["linux"]["cgroupsPath"]),
                (&json!("/pause"), &json!("/n/p"))
            );
        }
        assert!(!types(&document("", None, "")).contains(&"network"));
        let own = r#"{"process":{"args":["sh"]},"linux":{"cgroupsPath":"/c","namespaces":[{"type":"network"},{"type":"mount"}]}}"#;
        let whole = document(own, None, "/n");
        assert_eq!((types(&whole), &whole["process"]["args"][0]), (vec!["mount", "network"], &json!("sh")));
        assert_eq!((whole.get("root"), &whole["linux"]["cgroupsPath"]), (None, &json!("/c")));
    }

    #[test]
    fn pods_of_kubernetes() {
        let namespaces = field(2, &field(1, &[8, 2, 16, 2]));
        let linux = field(8, &[field(1, b"/kubepods/a/"), namespaces].concat());
        let config = berth_proto::pack_as(POD_CONFIG, [field(2, b"web"), linux].concat());
        let host = document("", Some(&config), "");
        // The host's network means the host's name, too.
        assert_eq!((types(&host), host.get("hostname")), (vec!["ipc", "mount"], None));
        assert_eq!(host["linux"]["cgroupsPath"], "/kubepods/a/p");
        let config = berth_proto::pack_as(POD_CONFIG, field(2, b"web"));
        assert_eq!(document("", Some(&config), "/n")["hostname"], "web");
    }

    #[test]
    fn refusals() {
        let refused = |config: &str, options: Option<(&str, &[u8])>| {
            let options = options.map(|(url, value)| berth_proto::pack_as(url, value.to_vec()));
            complete(Asked { config: config.as_bytes(), options: options.as_ref(), ..Asked::default() }).unwrap_err()
        };
        refused("[", None);
        refused(r#"{"linux":7}"#, None);
        assert!(refused("", Some(("other.Options", b"x"))).to_string().contains("other.Options"));
        let users = field(8, &field(2, &field(1, &field(5, &[8, 0]))));
        assert!(refused("", Some((POD_CONFIG, &users))).to_string().contains("user namespace"));
    }
}
