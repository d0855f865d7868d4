//! runtime-spec config-linux: namespaces, mappings, offsets, kernel parameters.

use std::fs;

use serde_json::json;

use crate::bundle::Container;
use crate::runtime::{Outcome, Runtime};

const ALL: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().display().to_string()
}

pub fn new_ones_are_new(runtime: &Runtime) -> Outcome {
    let script = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; readlink /proc/self/ns/user";
    let mut container = Container::with_script(runtime, script);
    container.push("/linux/namespaces", json!({"type": "cgroup"}));
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.lines().collect();
    for (line, (kind, file)) in lines.iter().zip(ALL) {
        assert!(line.starts_with(file) && *line != own(file), "{kind}: {line}");
    }
    assert_eq!(lines[6], own("user"));
    Ok(())
}

pub fn others_are_the_callers(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "for n in pid net ipc uts; do readlink /proc/self/ns/$n; done");
    container.set("/linux/namespaces", json!([{"type": "mount"}]));
    container.config.as_object_mut().unwrap().remove("hostname");
    // sysfs belongs to a network namespace, mqueue and the like to an IPC one; here all are the host's.
    let expected = ["pid", "net", "ipc", "uts"].map(own).join("\n");
    assert_eq!(container.run().ok(), expected);
    Ok(())
}

/// Without a mount namespace of its own a container has the host's and stands in its root there.
pub fn the_hosts_mounts_are_shared(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(
        runtime,
        "readlink /proc/self/ns/mnt; pwd; ls -d /in/file /proc/self/exe /bin/sh; echo $$",
    );
    let folder = container.host_folder("host");
    fs::write(folder.join("file"), "").unwrap();
    container.mount("/in", "bind", folder.to_str().unwrap(), &["bind"]);
    container.set("/linux/namespaces", json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]));
    let output = container.run();
    // runc leaves its mounts.
    let root = container.rootfs();
    let _is_a_mount = std::process::Command::new("umount").args(["-R", "-l"]).arg(root).output().unwrap();
    assert_eq!(output.ok(), format!("{}\n/\n/bin/sh\n/in/file\n/proc/self/exe\n1", own("mnt")));
    Ok(())
}

pub fn joined_by_path(runtime: &Runtime) -> Outcome {
    let first = Container::with_script(runtime, "hostname; sleep 60");
    let pid = first.create_and_start();
    let mut second = Container::beside(
        &first,
        "readlink /proc/self/ns/net; readlink /proc/self/ns/uts; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid",
    );
    let entry = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
    second.set(
        "/linux/namespaces",
        json!([{"type": "mount"}, entry("network", "net"), entry("uts", "uts"), entry("ipc", "ipc"), entry("pid", "pid")]),
    );
    second.config.as_object_mut().unwrap().remove("hostname");
    let expected = ["net", "uts", "ipc", "pid"]
        .map(|file| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().display().to_string());
    assert_eq!(second.run().ok(), expected.join("\n"));
    Ok(())
}

pub fn a_path_must_be_a_namespace(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    for path in ["/no/such/namespace", "/etc/passwd", "/proc/self/ns/uts"] {
        container
            .set("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": path}]));
        assert_ne!(container.run().code, 0, "{path}");
    }
    assert_eq!(container.call(&["list", "-q"]).stdout, "");
    Ok(())
}

pub fn host_name_and_domain(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "hostname; cat /proc/sys/kernel/domainname");
    container.set("/hostname", json!("named"));
    assert!(container.run().ok().starts_with("named\n"));
    runtime.needs_spec(1, 1)?;
    container.set("/domainname", json!("example.org"));
    assert_eq!(container.run().ok(), "named\nexample.org");
    Ok(())
}

pub fn user_mappings(runtime: &Runtime) -> Outcome {
    let script =
        "id -u; cut -c1-60 /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; stat -c %u /data; ls /dev/null";
    let mut container = Container::with_script(runtime, script);
    container.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    container.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // The mapped root must reach its root file system.
    let mode = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap()
    };
    let above = container.directory.parent().unwrap().to_owned();
    for path in [above, container.directory.clone(), container.bundle(), container.rootfs()] {
        mode(&path);
    }
    for path in [container.rootfs(), container.rootfs().join("dev"), container.rootfs().join("data")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines, ["0", "0 100000 65536", "allow", "0", "/dev/null"]);
    Ok(())
}

pub fn mappings_need_a_namespace(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    container.push("/linux/namespaces", json!({"type": "user"}));
    assert_ne!(container.run().code, 0, "a user namespace without mappings");
    Ok(())
}

pub fn sysctl(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni");
    container.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234"}));
    assert_eq!(container.run().ok(), "1\n1234");
    Ok(())
}

pub fn host_sysctl_is_refused(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    for key in ["kernel.panic", "vm.swappiness", "kernel.hostname"] {
        container.set("/linux/sysctl", json!({key: "1"}));
        assert_ne!(container.run().code, 0, "{key} is not namespaced");
    }
    container.set("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}]));
    container.config.as_object_mut().unwrap().remove("hostname");
    for key in ["net.ipv4.ip_forward", "kernel.shmmni"] {
        container.set("/linux/sysctl", json!({key: "1"}));
        assert_ne!(container.run().code, 0, "{key} would be the host's");
    }
    Ok(())
}

pub fn time_offsets(runtime: &Runtime) -> Outcome {
    runtime.needs("/linux/namespaces", "time")?;
    let mut container =
        Container::with_script(runtime, "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '");
    container.push("/linux/namespaces", json!({"type": "time"}));
    container.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let said = container.run().ok().to_owned();
    assert!(said.lines().next().unwrap().parse::<u64>().unwrap() >= 1_000_000, "{said}");
    assert!(said.contains("boottime 1000000"), "{said}");
    Ok(())
}
