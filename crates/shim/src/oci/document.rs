//! The container's document as other runtimes understand it: users as numbers, the root as a path, and no annotation that steers ours.
//! Everything else stays as it came, fields we do not know included.

use std::collections::HashMap;
use std::path::Path;

use berth_oci::annotation;
use berth_oci::runtime::{Process, Spec, User};
use berth_runtime::Identity;
use serde_json::{Value, json};

use super::CommandError;

const OWN: [&str; 4] =
    [annotation::SECCOMP_PROGRAM, annotation::GROUP_ADD, annotation::TRACE, annotation::CGROUP_DRIVER];

/// The oldest version of the specification that any runtime in use knows.
const VERSION: &str = "1.0.2";

#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) json: Vec<u8>,
    /// All of them, our own included.
    pub(crate) annotations: HashMap<String, String>,
}

/// `root`: where the root file system is on the host.
pub(crate) fn rewrite(
    config: &[u8],
    spec: &Spec,
    root: &Path,
    identify: impl Fn(&User, &HashMap<String, String>) -> Result<Identity, CommandError>,
) -> Result<Document, CommandError> {
    let failed = |source| CommandError::Document { what: "document", source };
    let annotations = spec.annotations().clone().unwrap_or_default();
    let mut value: Value = serde_json::from_slice(config).map_err(failed)?;
    let read_only = spec.root().as_ref().and_then(berth_oci::runtime::Root::readonly).unwrap_or_default();
    // Runtimes look whether they know the version, and pass over what they do not know in the document: crun before 1.9 takes 1.0 alone.
    value["ociVersion"] = json!(VERSION);
    value["root"] = json!({ "path": root, "readonly": read_only });
    if let Some(process) = spec.process()
        && needs_identity(process.user(), &annotations)
    {
        let identity = identify(process.user(), &annotations)?;
        set_user(&mut value["process"]["user"], process.user(), &identity);
    }
    if let Some(all) = value.get_mut("annotations").and_then(Value::as_object_mut) {
        all.retain(|key, _| !OWN.contains(&key.as_str()));
    }
    let json = serde_json::to_vec(&value).map_err(failed)?;
    Ok(Document { json, annotations })
}

/// A further process of the container with these annotations.
pub(crate) fn process(
    plan: &Process,
    annotations: &HashMap<String, String>,
    identify: impl Fn(&User) -> Result<Identity, CommandError>,
) -> Result<Vec<u8>, CommandError> {
    let failed = |source| CommandError::Document { what: "process", source };
    let mut value = serde_json::to_value(plan).map_err(failed)?;
    if needs_identity(plan.user(), annotations) {
        set_user(&mut value["user"], plan.user(), &identify(plan.user())?);
    }
    serde_json::to_vec(&value).map_err(failed)
}

/// Names, and the groups that are added to every process of the container.
fn needs_identity(user: &User, annotations: &HashMap<String, String>) -> bool {
    user.username().as_ref().is_some_and(|name| !name.is_empty()) || annotations.contains_key(annotation::GROUP_ADD)
}

fn set_user(value: &mut Value, user: &User, identity: &Identity) {
    *value = json!({ "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups });
    if let Some(umask) = user.umask() {
        value["umask"] = json!(umask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_the_rest_stays() {
        let config = br#"{"ociVersion":"1.2.0","root":{"path":"rootfs","readonly":true},"unknown":{"x":1},
            "process":{"user":{"uid":0,"gid":0,"username":"web"},"args":["a"],"cwd":"/","env":[]},
            "annotations":{"dev.berth.trace":"true","mine":"1"}}"#;
        let spec: Spec = serde_json::from_slice(config).unwrap();
        let identity = Identity { uid: 7, gid: 8, groups: vec![8, 9], home: "/".to_owned() };
        let document = rewrite(config, &spec, Path::new("/b/rootfs"), |_, _| Ok(identity.clone())).unwrap();
        let value: Value = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(value["root"], json!({"path": "/b/rootfs", "readonly": true}));
        assert_eq!(value["process"]["user"], json!({"uid": 7, "gid": 8, "additionalGids": [8, 9]}));
        assert_eq!(value["annotations"], json!({"mine": "1"}));
        assert_eq!((&value["unknown"], &value["ociVersion"]), (&json!({"x": 1}), &json!("1.0.2")));
        assert_eq!(document.annotations.len(), 2);
        // A further process without a name: the groups are added all the same.
        let plan: Process = serde_json::from_str(r#"{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"/"}"#).unwrap();
        let groups = HashMap::from([(annotation::GROUP_ADD.to_owned(), "9".to_owned())]);
        let user = |annotations| -> Value {
            let json = super::process(&plan, annotations, |_| Ok(identity.clone())).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()["user"].clone()
        };
        assert_eq!(user(&groups)["additionalGids"], json!([8, 9]));
        assert_eq!(user(&HashMap::new())["uid"], json!(0));
    }
}
