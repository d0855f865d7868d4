//! Mounts as runc's newest releases make them and Debian's 1.1.5 does not yet: found with runc's own integration tests. Ours only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_conformance::{Container, Runtime};
use berth_testkit::Output;
use serde_json::json;

const MAP: u32 = 100_000;

/// The mount table without what tests beside this one mount at folders of theirs.
fn mounts_of_host(own: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| !line.contains("/conf-") || line.contains(own)).map(str::to_owned).collect()
}

/// With a user namespace whose root may look into the bundle.
fn in_user_ns(container: &mut Container<'_>) {
    let map = json!([{"containerID": 0, "hostID": MAP, "size": 65_536}]);
    container.push("/linux/namespaces", json!({"type": "user"}));
    container.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let status = Command::new("chown").args(["-R", "-h", "100000:100000"]).arg(container.rootfs()).status().unwrap();
    assert!(status.success());
    for directory in container.rootfs().ancestors().take(4) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A tmpfs of the host with these attributes; gone with the value.
struct Source(PathBuf);

impl Source {
    fn new(container: &Container<'_>) -> Self {
        let path = container.host_folder("source");
        let made = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status().unwrap();
        assert!(made.success());
        Self(path)
    }

    fn set(&self, attributes: &str) {
        for options in ["remount,bind,rw,suid,dev,exec,diratime,strictatime", &format!("remount,bind,{attributes}")] {
            assert!(Command::new("mount").args(["-o", options]).arg(&self.0).status().unwrap().success());
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn bind_with(container: &mut Container<'_>, source: &Path, options: &[&str]) -> Output {
    let mounts = container.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/m");
    container.mount("/m", "bind", source.to_str().unwrap(), &[&["bind"], options].concat());
    container.run()
}

/// In a user namespace a bind keeps what its source has: to take it off by name is refused, not to name it keeps it. Elsewhere the names
/// count.
#[test]
fn a_user_namespace_keeps_the_attributes_of_a_source() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "grep ' /m ' /proc/mounts | cut -d' ' -f4");
    let source = Source::new(&container);
    source.set("nosuid,nodev,noatime");
    let plain = bind_with(&mut container, &source.0, &["suid", "relatime"]);
    assert!(plain.ok().starts_with("rw,relatime"), "{plain:?}");
    in_user_ns(&mut container);
    for (attributes, options, said) in [
        ("nosuid,nodev,noatime", &["ro"][..], "ro,nosuid,nodev,noatime"),
        ("nosuid,nodev,noatime", &["noexec", "atime"], "rw,nosuid,nodev,noexec,noatime"),
        ("nosuid,noatime", &["noatime"], "rw,nosuid,noatime"),
        ("strictatime", &["nostrictatime"], "rw"),
    ] {
        source.set(attributes);
        let output = bind_with(&mut container, &source.0, options);
        assert!(output.ok().starts_with(said), "{attributes} {options:?}: {output:?}");
    }
    for (attributes, option) in [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("noexec", "rexec"),
        ("relatime", "strictatime"),
        ("relatime", "nodiratime"),
        ("noatime", "relatime"),
        ("strictatime", "noatime"),
    ] {
        source.set(attributes);
        let output = bind_with(&mut container, &source.0, &[option]);
        assert!(output.code == 1 && output.stdout.is_empty(), "{attributes} {option}: {output:?}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert!(lines[0].contains("error mounting") && lines[0].contains("user namespace keeps"), "{output:?}");
        // The hint has runc's words.
        let mut words = output.stderr.split("runc run failed: unable to start container process: ").skip(1);
        let words = words.next().unwrap_or_default();
        assert!(words.starts_with("error during container init: error mounting"), "{output:?}");
        assert!(words.contains("operation not permitted"), "{output:?}");
    }
}

/// A source that an earlier mount put into the root is mapped as one of the host is, with and without a user namespace.
#[test]
fn a_source_inside_the_root_is_id_mapped() {
    for has_user_ns in [false, true] {
        let runtime = Runtime::tested();
        let script = "stat -c '%u %g' /mnt/x/file; stat -c '%u %g' /final/x/file; cat /final/x/y/file";
        let mut container = Container::with_script(&runtime, script);
        let (first, second) = (container.host_folder("first"), container.host_folder("second"));
        for file in [first.join("x/file"), first.join("x/y/file"), second.join("file")] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "first\n").unwrap();
        }
        fs::write(second.join("file"), "second\n").unwrap();
        fs::create_dir_all(container.rootfs().join("mnt")).unwrap();
        if has_user_ns {
            in_user_ns(&mut container);
        }
        container.mount("/mnt", "bind", first.to_str().unwrap(), &["rbind"]);
        container.mount("/mnt/x/y", "bind", second.to_str().unwrap(), &["rbind"]);
        let inside = container.rootfs().join("mnt");
        container.mount("/final", "bind", inside.to_str().unwrap(), &["rbind", "idmap"]);
        let map = json!([{"containerID": 0, "hostID": MAP + 7, "size": 10}]);
        let last = container.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        last["uidMappings"] = map.clone();
        last["gidMappings"] = map;
        let output = container.run();
        let (before, after) = if has_user_ns { ("65534 65534", "7 7") } else { ("0 0", "100007 100007") };
        assert_eq!(output.ok(), format!("{before}\n{after}\nsecond"), "user namespace: {has_user_ns}");
    }
}

/// In the host's mount namespace a container stands in mounts that no namespace has: the host's table is as before, masks hold, what joins
/// stands there as well, and all is gone with it.
#[test]
fn among_the_hosts_mounts_the_host_sees_none() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "echo ready; sleep 60");
    container.set("/linux/namespaces", json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]));
    container.set("/linux/maskedPaths", json!(["/proc/keys"])).set("/linux/readonlyPaths", json!(["/proc/sys"]));
    container.set("/root/readonly", json!(true));
    let before = mounts_of_host(&container.id);
    container.create_and_start();
    container.wait_for_said("ready");
    assert_eq!(mounts_of_host(&container.id), before);
    let script = "readlink /proc/self/ns/mnt; pwd; cat /proc/keys | wc -c; touch /x 2>&1; echo 1 2>/dev/null \
                  >/proc/sys/kernel/hostname || echo kept; umount /dev/shm 2>/dev/null || echo stays; ls /proc/1/exe";
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    let expected = format!("{own}\n/\n0\ntouch: /x: Read-only file system\nkept\nstays\n/proc/1/exe");
    assert_eq!(container.exec(&[], &["/bin/busybox", "sh", "-c", script]).ok(), expected);
    container.call(&["kill", &container.id, "KILL"]).ok();
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    assert_eq!(mounts_of_host(&container.id), before);
    // The bundle is as free as it was.
    fs::remove_dir_all(container.rootfs()).unwrap();
}

#[test]
fn what_the_hosts_mount_namespace_cannot_have() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "true");
    container.set("/linux/namespaces", json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]));
    let folder = container.host_folder("host");
    container.mount("/in", "bind", folder.to_str().unwrap(), &["bind", "unbindable"]);
    let refused = container.run();
    assert!(refused.code == 1 && refused.stderr.contains("unbindable one needs a mount namespace"), "{refused:?}");
    container.config["mounts"].as_array_mut().unwrap().pop();
    in_user_ns(&mut container);
    let refused = container.run();
    assert!(refused.code == 1 && refused.stderr.contains("a user namespace without a mount namespace"), "{refused:?}");
}

/// A root that is not pivoted keeps the host's procfs and sysfs below it: they are hidden, or a user namespace inside could mount another one
/// without the masks.
#[test]
fn without_pivot_the_hosts_procfs_is_hidden() {
    let runtime = Runtime::tested();
    let script = "busybox unshare -Urmpf mount -t proc proc /data && echo procfs; \
                  busybox unshare -Urmn mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /data && echo sysfs; echo end";
    let mut container = Container::with_script(&runtime, script);
    container.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/kernel"]));
    // Without masks there is nothing to be got around.
    let mut open = Container::with_script(&runtime, script);
    open.set("/linux/maskedPaths", json!([]));
    for (container, expected) in [(&mut container, "end\n"), (&mut open, "procfs\nsysfs\nend\n")] {
        // To map its user 0 inside again (user_namespaces(7)).
        for set in ["bounding", "effective", "permitted"] {
            container.push(&format!("/process/capabilities/{set}"), json!("CAP_SETFCAP"));
        }
        container.write_config();
        let output = container.run_command(&["--no-pivot"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A createRuntime hook that enters the mount namespace finds the root at its path on the host, with the spec's mounts in it.
#[test]
fn a_hook_finds_the_root_at_its_path() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "true");
    let (root, found) = (container.rootfs(), container.directory.join("found"));
    let script = format!(
        "pid=$(sed -E 's/.*\"pid\": ?([0-9]+).*/\\1/'); nsenter -t $pid -m -- ls -d {0}/bin/busybox {0}/dev/pts/ptmx >{1} 2>&1",
        root.display(),
        found.display()
    );
    container.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]}),
    );
    let output = container.run();
    assert_eq!(output.code, 0, "{output:?}");
    let found = fs::read_to_string(found).unwrap();
    assert_eq!(found, format!("{0}/bin/busybox\n{0}/dev/pts/ptmx\n", root.display()));
}
