//! `spec`: a config.json to start from, the same as runc's.

use std::path::Path;

use berth_cgroup::{Layout, Version};
use serde_json::{Map, Value, json};

use crate::error::CommandError;
use crate::paths;

const TEMPLATE: &str = include_str!("spec/config.json");

pub(crate) fn spec(bundle: Option<&Path>, rootless: bool) -> Result<(), CommandError> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let text = TEMPLATE.replace("@VERSION@", berth_runtime::OCI_VERSION);
    let mut config: Value =
        serde_json::from_str(&text).map_err(|source| CommandError::Json { path: "the template".to_owned(), source })?;
    if Layout::detect().is_ok_and(|layout| layout.version == Version::V2)
        && let Some(namespaces) = config["linux"]["namespaces"].as_array_mut()
    {
        namespaces.push(json!({"type": "cgroup"}));
    }
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_rootless(&mut config, uid, gid);
    }
    let text = tabbed(&config)?;
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        // Not for others: it may come to hold secrets.
        std::io::Write::write_all(&mut file, text.as_bytes())
    });
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(CommandError::Usage(format!("File {} exists. Remove it first", path.display())))
        }
        written => written.map_err(paths::file("write", &path)),
    }
}

/// What an ordinary user may ask for: an own user namespace with one id, the host's network with its view in /sys, no limits.
fn make_rootless(config: &mut Value, uid: u32, gid: u32) {
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    let mapping = |id| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    linux["uidMappings"] = mapping(uid);
    linux["gidMappings"] = mapping(gid);
    linux.as_object_mut().map(|linux: &mut Map<String, Value>| linux.remove("resources"));
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        } else if let Some(options) = mount["options"].as_array_mut() {
            let owner =
                |option: &Value| option.as_str().is_some_and(|o| o.starts_with("gid=") || o.starts_with("uid="));
            options.retain(|option| !owner(option));
        }
    }
}

/// Indented as runc does it, one tab a level.
fn tabbed(config: &Value) -> Result<String, CommandError> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(config, &mut serializer).map_err(super::unwritable)?;
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}
