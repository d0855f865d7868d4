//! What the container sees of the host, and the host of the container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::json;

use crate::support::{Bundle, wait};

pub(super) const KINDS: [&str; 7] = ["mnt", "uts", "ipc", "pid", "net", "cgroup", "user"];

pub(super) fn ns_inode(pid: &str, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino()
}

/// S-010
pub(super) fn s010_seven_kinds_differ_from_the_host() {
    let mut bundle = Bundle::new().user_ns().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let pid = running.container.init.pid.to_string();
    for kind in KINDS {
        assert_ne!(ns_inode(&pid, kind), ns_inode("self", kind), "{kind}");
    }
    running.container.delete().unwrap();
    // Singly: what is not asked for is shared.
    for (index, kind) in ["uts", "ipc", "pid", "network"].into_iter().enumerate() {
        let mut bundle = Bundle::new().sh("echo up; sleep 60");
        bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": kind}]);
        bundle.spec["hostname"] = if kind == "uts" { json!("x") } else { json!("") };
        let running = bundle.start();
        running.await_line("up");
        let pid = running.container.init.pid.to_string();
        for (other, file) in ["uts", "ipc", "pid", "net"].into_iter().enumerate() {
            let differs = ns_inode(&pid, file) != ns_inode("self", file);
            assert_eq!(differs, other == index, "asked for {kind}, looked at {file}");
        }
        running.container.delete().unwrap();
    }
}

/// S-012
pub(super) fn s012_the_root_is_the_image_and_the_host_sees_no_mount() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut bundle = Bundle::new().overlay().sh("head -1 /proc/self/mountinfo; ls /; sleep 60");
    let running = bundle.start();
    let text = running.await_line("sys\ntmp\n");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    let mut lines = text.lines();
    assert!(lines.next().unwrap().contains(" - overlay "), "{text}");
    assert_eq!(lines.collect::<Vec<_>>(), ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]);
    running.container.delete().unwrap();
}

/// S-013
pub(super) fn s013_a_marker_of_the_host_is_nowhere() {
    let marker = tempfile::Builder::new().prefix("berth-marker-").tempfile().unwrap();
    let name = marker.path().file_name().unwrap().to_str().unwrap().to_owned();
    let script = format!(
        "ls /../../.. > /dev/null; find / -xdev -name '{name}' 2>/dev/null; ls /proc/1/root/tmp /proc/1/root/../../tmp; \
         ls -l /proc/self/cwd; echo up; exec sleep 60"
    );
    let mut bundle = Bundle::new().sh(&script);
    let running = bundle.start();
    let text = running.await_line("up\n");
    assert!(!text.contains("berth-marker"), "{text}");
    assert!(text.contains("/proc/self/cwd -> /\n"), "{text}");
    // No descriptor of the host: init has its three streams, which are ours.
    let fds = format!("/proc/{}/fd", running.container.init.pid);
    let mut links: Vec<String> = fs::read_dir(fds)
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    links.sort();
    assert_eq!(links.len(), 3, "{links:?}");
    assert!(links[0] == "/dev/null" && links[1].starts_with("pipe:") && links[2].starts_with("pipe:"), "{links:?}");
    running.container.delete().unwrap();
}

/// S-015, S-016
pub(super) fn s015_s016_names_are_the_containers_own() {
    let names = || (rustix::system::uname().nodename().to_owned(), rustix::system::uname().domainname().to_owned());
    let before = names();
    let mut bundle = Bundle::new().set("/hostname", json!("inside")).set("/domainname", json!("d.example"));
    bundle = bundle.sh("hostname; cat /proc/sys/kernel/domainname; hostname changed; hostname");
    assert_eq!(bundle.output(), "inside\nd.example\nchanged\n");
    assert_eq!(names(), before);
}

/// S-017
pub(super) fn s017_init_is_process_one() {
    let mut bundle = Bundle::new().sh("echo $$; sleep 60");
    let running = bundle.start();
    assert_eq!(running.await_line("\n"), "1\n");
    let status = fs::read_to_string(format!("/proc/{}/status", running.container.init.pid)).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(1).collect();
    assert_eq!((numbers.len(), numbers[1]), (2, "1"), "{line}");
    running.container.delete().unwrap();
}

/// S-018
pub(super) fn s018_only_own_processes_and_init_ends_them() {
    let mut bundle = Bundle::new().sh("sleep 60 & sleep 60 & ps -o pid,comm > /tmp/ps; cat /tmp/ps; echo listed; wait");
    let running = bundle.start();
    let text = running.await_line("listed");
    assert_eq!(text.lines().count(), 6, "{text}");
    let pids = running.container.pids().unwrap();
    assert_eq!(pids.len(), 3);
    running.container.kill(berth_types::Signal::KILL).unwrap();
    assert_eq!(wait(&running.container.init), 137);
    assert_eq!(running.container.pids().unwrap(), Vec::<u32>::new());
    running.container.delete().unwrap();
}

/// S-024
pub(super) fn s024_ipc_objects_stay_inside() {
    let host = || fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let before = host();
    let text = Bundle::new()
        .sh("ls /dev/mqueue | wc -l; wc -l < /proc/sysvipc/sem; grep mqueue /proc/mounts | cut -d' ' -f3; cat /proc/sys/kernel/shmmni")
        .output();
    assert_eq!(text, "0\n1\nmqueue\n4096\n");
    assert_eq!(host(), before);
}

fn without_cgroup_ns(bundle: Bundle) -> Bundle {
    let list: Vec<_> = ["mount", "pid", "ipc", "uts", "network"].iter().map(|kind| json!({"type": kind})).collect();
    bundle.set("/linux/namespaces", json!(list))
}

/// S-025
pub(super) fn s025_host_cgroup_namespace() {
    let bundle = Bundle::new().sh("cat /proc/self/cgroup; echo; cat /proc/self/mountinfo");
    let path = format!("/berth-test/{}", bundle.id);
    let text = without_cgroup_ns(bundle).output();
    let (groups, mounts) = text.split_once("\n\n").unwrap();
    // A hierarchy that is mounted somewhere else only is none of ours.
    let here = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_here = |line: &&str| {
        let name = line.split(':').nth(1).unwrap().split(',').next().unwrap();
        !name.is_empty() && here.lines().any(|mount| mount.contains(" - cgroup ") && mount.ends_with(name))
    };
    assert!(groups.lines().any(|line| line.ends_with(&path)), "{groups}");
    assert!(groups.lines().filter(is_here).all(|line| line.ends_with(&path)), "{groups}");
    assert!(mounts.lines().any(|line| line.contains(&path) && line.contains(" - cgroup")), "{mounts}");
}

/// S-026
pub(super) fn s026_own_cgroup_namespace() {
    let text = Bundle::new()
        .sh("cat /proc/self/cgroup; echo; cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; true")
        .output();
    let (groups, processes) = text.split_once("\n\n").unwrap();
    assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
    assert!(processes.lines().any(|line| line == "1"), "{processes}");
}

/// S-028
pub(super) fn s028_a_sibling_cgroup_is_out_of_reach() {
    let mut sibling = Bundle::new().sh("echo up; sleep 60");
    let other = sibling.start();
    other.await_line("up");
    let mut bundle = Bundle::new().sh(&format!(
        "cd /sys/fs/cgroup/pids && mkdir child && echo $$ > child/cgroup.procs && cat /proc/self/cgroup | grep pids; \
         find /sys/fs/cgroup -name '{}'; ls -d ../../*/berth-test 2>/dev/null; echo $$ > cgroup.procs; rmdir child; echo end",
        sibling.id
    ));
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
        }
    }
    let text = bundle.output();
    assert!(text.contains(":pids:/child\n"), "{text}");
    assert!(!text.contains(&sibling.id), "{text}");
    assert!(text.ends_with("end\n"), "{text}");
    other.container.delete().unwrap();
}

/// S-029
pub(super) fn s029_namespaces_are_seen_by_strace() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=clone3,unshare,setns", "-o"])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--child", "namespaces::s017_init_is_process_one"])
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(trace.path()).unwrap();
    let clone = text.lines().find(|line| line.contains("clone3(") && line.contains("CLONE_NEWPID")).unwrap();
    for flag in ["CLONE_NEWNS", "CLONE_NEWUTS", "CLONE_NEWIPC", "CLONE_NEWNET", "CLONE_PIDFD", "CLONE_INTO_CGROUP"] {
        assert!(clone.contains(flag), "{flag}: {clone}");
    }
    assert!(text.lines().any(|line| line.contains("unshare(CLONE_NEWCGROUP)")), "{text}");
}

pub(super) fn joined_namespaces_are_the_same() {
    let mut first = Bundle::new().sh("echo up; sleep 60");
    let running = first.start();
    running.await_line("up");
    let pid = running.container.init.pid.to_string();
    let mut second = Bundle::new().sh("hostname; ps -o comm | grep -c sleep; echo up; sleep 60");
    second.spec["hostname"] = json!("");
    second.spec["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "cgroup"},
        {"type": "pid", "path": format!("/proc/{pid}/ns/pid")}, {"type": "uts", "path": format!("/proc/{pid}/ns/uts")},
        {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")}, {"type": "network", "path": format!("/proc/{pid}/ns/net")},
    ]);
    let joined = second.start();
    assert_eq!(joined.await_line("up"), "berth-test\n1\nup\n");
    let other = joined.container.init.pid.to_string();
    for kind in ["pid", "uts", "ipc", "net"] {
        assert_eq!(ns_inode(&pid, kind), ns_inode(&other, kind), "{kind}");
    }
    assert_ne!(ns_inode(&pid, "mnt"), ns_inode(&other, "mnt"));
    // The creator's own children are born in its own namespace again.
    assert_eq!(ns_inode("self", "pid"), ns_inode("self", "pid_for_children"));
    joined.container.delete().unwrap();
    running.container.delete().unwrap();
}

pub(super) fn time_namespace_has_its_offsets() {
    let mut bundle = Bundle::new().sh("cut -d. -f1 /proc/uptime");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}});
    let uptime: u64 = bundle.output().trim().parse().unwrap();
    assert!(uptime > 1_000_000, "{uptime}");
}
