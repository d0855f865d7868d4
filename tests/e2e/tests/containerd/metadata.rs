//! What needs no container: version, namespaces, plugins, records, leases.

use berth_testkit::Instance;

use super::rows;

/// S-112: `ctr version` is answered by our daemon.
#[test]
fn s112_version_and_plugins() {
    let instance = Instance::start();
    let version = instance.ctr(&["version"]);
    let server = version.ok().split("Server:").nth(1).unwrap();
    assert!(server.contains(&format!("Version:  {}", env!("CARGO_PKG_VERSION"))), "{version:?}");
    assert!(server.contains("UUID: "), "{version:?}");
    let plugins = instance.ctr(&["plugins", "ls"]);
    let plugins = rows(plugins.ok());
    for (kind, id) in [("io.containerd.content.v1", "content"), ("io.containerd.snapshotter.v1", "overlayfs")] {
        let found = plugins.iter().find(|row| row[0] == kind && row[1] == id);
        assert_eq!(found.and_then(|row| row.last()), Some(&"ok"), "{kind} {id}: {plugins:?}");
    }
}

/// Tenants: made, labelled, listed, removed when empty, refused by name otherwise.
#[test]
fn namespaces() {
    let instance = Instance::start();
    let names = |instance: &Instance| -> Vec<String> {
        let listed = instance.ctr(&["namespaces", "ls", "-q"]);
        listed.ok().lines().map(str::to_owned).collect()
    };
    assert_eq!(names(&instance), ["default"]);
    instance.ctr(&["namespaces", "create", "team", "owner=ada"]).ok();
    assert_eq!(names(&instance), ["default", "team"]);
    let twice = instance.ctr(&["namespaces", "create", "team"]);
    assert!(twice.code != 0 && twice.stderr.contains("namespace \"team\": already exists"), "{twice:?}");
    instance.ctr(&["namespaces", "label", "team", "owner=", "tier=web"]).ok();
    assert_eq!(rows(instance.ctr(&["namespaces", "ls"]).ok())[1], ["team", "tier=web"]);
    instance.ctr(&["-n", "team", "leases", "create", "--id", "held"]).ok();
    let full = instance.ctr(&["namespaces", "rm", "team"]);
    assert!(full.code != 0 && full.stderr.contains("namespace \"team\" is not empty: it has leases"), "{full:?}");
    instance.ctr(&["-n", "team", "leases", "rm", "held"]).ok();
    instance.ctr(&["namespaces", "rm", "team"]).ok();
    assert_eq!(names(&instance), ["default"]);
    let bad = instance.ctr(&["namespaces", "create", "a/b"]);
    assert!(bad.code != 0 && bad.stderr.contains("namespace \"a/b\" is not valid"), "{bad:?}");
}

/// S-117: container objects without any task; filters; what one tenant has, another does not see. Survives the daemon's end.
#[test]
fn s117_container_objects() {
    let mut instance = Instance::start();
    let spec = instance.directory.join("config.json");
    std::fs::write(
        &spec,
        r#"{"ociVersion":"1.0.2","process":{"args":["sleep","1"],"cwd":"/"},"root":{"path":"rootfs"}}"#,
    )
    .unwrap();
    let spec = spec.to_str().unwrap();
    let create = |instance: &Instance, tenant: &str, id: &str, label: &str| {
        instance.ctr(&["-n", tenant, "containers", "create", "--config", spec, "--label", label, id])
    };
    create(&instance, "team", "web", "tier=front").ok();
    create(&instance, "team", "db", "tier=back").ok();
    create(&instance, "other", "web", "tier=x").ok();
    let twice = create(&instance, "team", "web", "a=b");
    assert!(twice.code != 0 && twice.stderr.contains("container \"web\": already exists"), "{twice:?}");
    let ids = |instance: &Instance, words: &[&str]| -> Vec<String> {
        let listed = instance.ctr(&[&["-n", "team", "containers", "ls", "-q"], words].concat());
        listed.ok().lines().map(str::to_owned).collect()
    };
    assert_eq!(ids(&instance, &[]), ["db", "web"]);
    assert_eq!(ids(&instance, &["labels.tier==front"]), ["web"]);
    assert_eq!(ids(&instance, &["id~=^d", "labels.nothing"]), ["db"]);
    instance.ctr(&["-n", "team", "containers", "label", "web", "tier=middle"]).ok();
    instance.kill_daemon();
    instance.spawn();
    assert_eq!(ids(&instance, &["labels.tier==middle"]), ["web"]);
    let info = instance.ctr(&["-n", "team", "containers", "info", "web"]);
    let info: serde_json::Value = serde_json::from_str(info.ok()).unwrap();
    assert_eq!((info["ID"].as_str(), info["Runtime"]["Name"].as_str()), (Some("web"), Some("io.containerd.runc.v2")));
    assert_eq!(info["Spec"]["process"]["args"], serde_json::json!(["sleep", "1"]));
    for (tenant, id) in [("team", "web"), ("team", "db"), ("other", "web")] {
        instance.ctr(&["-n", tenant, "containers", "rm", id]).ok();
    }
    let gone = instance.ctr(&["-n", "team", "containers", "info", "web"]);
    assert!(gone.code != 0 && gone.stderr.contains("container \"web\": not found"), "{gone:?}");
}

/// S-004: what Docker's face made, containerd's shows.
#[test]
fn s004_docker_containers_are_seen() {
    let instance = Instance::with_busybox();
    let id = instance.sleeper("web", &["-l", "tier=front"]);
    assert_eq!(instance.ctr(&["containers", "ls", "-q"]).ok(), id);
    assert_eq!(instance.ctr(&["containers", "ls", "-q", "labels.tier==front"]).ok(), id);
    assert_eq!(instance.ctr(&["-n", "other", "containers", "ls", "-q"]).ok(), "");
    let info = instance.ctr(&["containers", "info", &id]);
    let info: serde_json::Value = serde_json::from_str(info.ok()).unwrap();
    assert_eq!(info["Runtime"]["Name"], "io.containerd.berth.v1");
    assert_eq!(info["Labels"]["berth.container.name"], "web");
    assert_eq!(info["Spec"]["process"]["args"], serde_json::json!(["sleep", "1000"]));
    let images = instance.ctr(&["images", "ls", "-q"]);
    assert_eq!(images.ok(), "docker.io/library/busybox:latest");
}
