//! `state`, `spec`, `features`: documents.

use std::path::Path;

use berth_oci::runtime::Spec;
use serde_json::json;

use super::print;
use crate::error::CommandError;
use crate::paths;

fn pretty(value: &impl serde::Serialize) -> Result<String, CommandError> {
    serde_json::to_string_pretty(value).map_err(|source| CommandError::Json { path: "the answer".to_owned(), source })
}

pub(crate) fn state(root: &Path, id: &str) -> Result<(), CommandError> {
    let (container, created) = paths::container(root, id)?;
    let state = container.state();
    let mut value =
        serde_json::to_value(&state).map_err(|source| CommandError::Json { path: "the state".to_owned(), source })?;
    value["rootfs"] = json!(paths::spec(&state.bundle)?.root().as_ref().map(|root| state.bundle.join(root.path())));
    value["created"] = json!(super::list::created_text(created));
    value["owner"] = json!("");
    print(&pretty(&value)?);
    Ok(())
}

pub(crate) fn spec(bundle: Option<&Path>) -> Result<(), CommandError> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    if path.exists() {
        return Err(CommandError::Usage(format!("{} exists already", path.display())));
    }
    let mut text = pretty(&Spec::default())?;
    text.push('\n');
    std::fs::write(&path, text).map_err(paths::file("write", &path))
}

pub(crate) fn features() -> Result<(), CommandError> {
    let value = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "atime", "bind", "defaults", "dev", "diratime", "exec", "idmap", "noatime", "nodev", "nodiratime", "noexec",
            "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime",
            "relatime", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime",
            "rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave",
            "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "slave", "strictatime", "suid",
            "symfollow", "tmpcopyup", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false},
        },
    });
    print(&pretty(&value)?);
    Ok(())
}
