//! The container's cgroup as the host sees it, on either version.

use std::path::{Path, PathBuf};

use crate::bundle::Container;

pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The directory of a controller.
pub fn directory(container: &Container<'_>, controller: &str) -> PathBuf {
    let path = container.config["linux"]["cgroupsPath"].as_str().unwrap().trim_start_matches('/').to_owned();
    let root = Path::new("/sys/fs/cgroup");
    if is_v2() { root.join(path) } else { root.join(controller).join(path) }
}

/// The value of a file, by its name on v1 and on v2.
pub fn value(container: &Container<'_>, controller: &str, v1: &str, v2: &str) -> String {
    let file = directory(container, controller).join(if is_v2() { v2 } else { v1 });
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
}

/// # Errors
/// The reason to skip a case.
pub fn needs(controller: &str) -> Result<(), String> {
    let root = Path::new("/sys/fs/cgroup");
    let found = if is_v2() {
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == controller)
    } else {
        root.join(controller).exists()
    };
    if found { Ok(()) } else { Err(format!("this host has no controller {controller}")) }
}

/// Whether any hierarchy still has the container's directory.
pub fn is_left(container: &Container<'_>) -> bool {
    ["memory", "pids", "freezer", "devices", "cpu", "unified"].iter().any(|c| directory(container, c).exists())
}
