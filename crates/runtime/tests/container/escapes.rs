//! Attacks of the public record that a running container can try: what it sees, what it can reach, what joins it. Every one must fail.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use berth_runtime::{Container, StateDir};
use berth_types::{Timestamp, report};
use serde_json::{Value, json};

use super::spec::{create, refused};
use crate::support::{Bundle, pipes, process_value};

fn with_capabilities(mut bundle: Bundle, names: &[&str]) -> Bundle {
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set] = json!(names);
    }
    bundle
}

/// CVE-2015-3627, CVE-2024-21626: neither the first process nor an added one holds anything of the host.
pub(super) fn cve_2015_3627_nothing_of_the_host_is_held() {
    let script = "for f in /proc/$1/fd/*; do readlink $f; done | sed 's/\\[.*//' | sort -u; for l in root cwd; do readlink /proc/$1/$l; done";
    let mut bundle = Bundle::new().args(&["sh", "-c", &format!("set -- 1; {script}; echo up; sleep 60")]);
    let running = bundle.start();
    let text = running.await_line("up");
    assert_eq!(text, "/dev/null\npipe:\n/\n/\nup\n");
    let (_, text) = running.exec(&process_value(&["sh", "-c", &format!("set -- $$; {script}")]));
    assert_eq!(text, "/dev/null\npipe:\n/\n/\n");
    running.container.delete().unwrap();
}

/// CVE-2015-3630, CVE-2017-16539, CVE-2018-10892: what the engine's lists name can neither be written nor read.
pub(super) fn cve_2015_3630_system_files_are_read_only() {
    let script = "for f in /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity /proc/fs/x /proc/bus/x /sys/kernel/x; do \
                      (echo x > $f) 2>&1 | sed 's/.*: //'; done; wc -c < /proc/keys; wc -c < /proc/timer_list; ls /sys/firmware | wc -l";
    let text = with_capabilities(Bundle::new(), &["CAP_DAC_OVERRIDE", "CAP_SYS_RESOURCE"]).sh(script).output();
    let allowed = ["Read-only file system", "nonexistent directory", "Permission denied"];
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some(allowed[0]), Some(allowed[0])), "{text}");
    assert!(lines.by_ref().take(3).all(|line| allowed.contains(&line)), "{text}");
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "0", "0"], "{text}");
}

/// GHSA-g54h-m393-cpwq: a container whose document says nothing of devices may use the default ones and no other.
pub(super) fn ghsa_g54h_m393_cpwq_devices_are_denied_unless_listed() {
    let script = "for d in 'b 8 0' 'b 7 0' 'c 1 1' 'c 1 2' 'c 1 4' 'c 10 229' 'c 4 1'; do mknod /tmp/d $d; \
                  (: < /tmp/d) 2>&1 | sed 's/.*: //'; rm /tmp/d; done; (: < /dev/null) && (: < /dev/urandom) && echo usable";
    let text =
        with_capabilities(Bundle::new(), &["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE"]).sh(script).output();
    assert_eq!(text, format!("{}usable\n", "Operation not permitted\n".repeat(7)));
}

/// CVE-2022-0492: neither the cgroup hierarchies as they are mounted, nor a user namespace of the container's own, lead to a release
/// agent.
pub(super) fn cve_2022_0492_release_agent_is_out_of_reach() {
    let profile: Value = serde_json::to_value(berth_seccomp::default_profile()).unwrap();
    // The specification's part of the profile, for a container without CAP_SYS_ADMIN.
    let rules: Vec<Value> = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule.get("includes").is_none_or(|includes| includes.get("caps").is_none()))
        .map(|rule| {
            let mut rule = rule.clone();
            rule.as_object_mut()
                .unwrap()
                .retain(|key, _| ["names", "action", "errnoRet", "args"].contains(&key.as_str()));
            rule
        })
        .collect();
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    let mut bundle = with_capabilities(Bundle::new().set("/linux/seccomp", filter), &["CAP_DAC_OVERRIDE"]);
    bundle = bundle.sh(
        "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); do \
             (echo /x > $f) 2>&1 | sed 's/.*: //'; done | sort -u; mkdir /sys/fs/cgroup/x 2>&1 | sed 's/.*: //'; \
         for f in -U -m -i -Ur; do unshare $f true 2>&1 | sed 's/.*: //'; done | sort -u; \
         mount -t cgroup none /tmp 2>&1 | sed 's/.*: //'",
    );
    let text = bundle.run().1;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Read-only file system", "{text}");
    assert_eq!(&lines[lines.len() - 2..], ["Operation not permitted", "permission denied (are you root?)"], "{text}");
    assert!(lines.iter().all(|line| {
        ["Read-only file system", "Operation not permitted", "permission denied (are you root?)"].contains(line)
    }));
}

/// CVE-2023-25809: without a cgroup namespace of its own, root of a user namespace finds nothing in the hierarchy that it may write.
pub(super) fn cve_2023_25809_foreign_cgroups_cannot_be_written() {
    let mut bundle = Bundle::new().user_ns().overlay();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "cgroup");
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev"]);
        }
    }
    bundle = bundle.sh(
        "find /sys/fs/cgroup -name tasks -o -name cgroup.procs -o -name memory.max -o -name memory.limit_in_bytes | while read f; do \
             (echo 1 > $f) 2>&1 | sed 's/.*: //'; done | sort -u",
    );
    let text = bundle.output();
    assert!(!text.is_empty());
    assert!(text.lines().all(|line| ["Read-only file system", "Permission denied"].contains(&line)), "{text}");
}

/// CVE-2025-27612, CVE-2022-29162: an added process has the capabilities its own document gives it, which may be none.
pub(super) fn cve_2025_27612_exec_gives_no_more_than_asked() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let (_, text) = running.exec(&process_value(&["grep", "Cap", "/proc/self/status"]));
    assert!(text.lines().count() == 5 && text.lines().all(|line| line.ends_with("\t0000000000000000")), "{text}");
    let mut process = process_value(&["grep", "Cap", "/proc/self/status"]);
    process["capabilities"] = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": []});
    let (_, text) = running.exec(&process);
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
        CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\n";
    // Root's exec raises what is permitted; the bounding set is the limit.
    assert_eq!(text, expected);
    process["user"] = json!({"uid": 7, "gid": 7});
    let (_, text) = running.exec(&process);
    assert!(text.contains("CapEff:\t0000000000000000\n") && text.contains("CapBnd:\t0000000000000020\n"), "{text}");
    running.container.delete().unwrap();
}

/// CVE-2025-52881, CVE-2025-62596: a root that looks like procfs gets no write that is meant for the kernel.
pub(super) fn cve_2025_52881_writes_to_proc_reach_the_kernel() {
    let bundle = Bundle::new().set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("ip_forward"), "canary").unwrap();
    let mut bundle =
        bundle.sh("mount -t proc p /tmp && cat /tmp/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward");
    // No procfs in the container: the image's own directory is what is there.
    bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle.spec["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(bundle.output(), "1\ncanary");
    assert_eq!(fs::read_to_string(fake.join("ip_forward")).unwrap(), "canary");
}

/// CVE-2026-30892, CVE-2016-3697
pub(super) fn cve_2026_30892_exec_has_the_exact_identity() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    fs::write(bundle.rootfs().join("etc/passwd"), "1:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n").unwrap();
    let running = bundle.start();
    running.await_line("up");
    let mut process = process_value(&["grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status"]);
    process["user"] = json!({"uid": 1, "gid": 1});
    assert_eq!(running.exec(&process).1, "Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t \n");
    process["user"] = json!({"username": "1"});
    assert!(running.exec(&process).1.starts_with("Uid:\t1\t1\t1\t1\n"));
    running.container.delete().unwrap();
}

/// CVE-2025-47291: a container in a user namespace lives in its group and under its limits like any other.
pub(super) fn cve_2025_47291_limits_hold_in_a_user_namespace() {
    let mut bundle = Bundle::new()
        .user_ns()
        .overlay()
        .set("/linux/resources", json!({"pids": {"limit": 7}, "memory": {"limit": 33_554_432}}))
        .sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", running.container.init.pid)).unwrap();
    let own = format!("/berth-test/{}", bundle.id);
    for line in
        groups.lines().filter(|line| line.contains("pids") || line.contains("memory") || line.starts_with("0::"))
    {
        assert!(line.ends_with(&own) || line.starts_with("0::/") && groups.lines().count() > 1, "{line}");
    }
    let stats = running.container.stats().unwrap();
    assert_eq!((stats.pids.limit, stats.memory.limit), (Some(7), Some(33_554_432)));
    let forks = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; wait";
    let (_, text) = running.exec(&process_value(&["sh", "-c", forks]));
    assert!(text.contains("can't fork"), "{text}");
    running.container.delete().unwrap();
}

/// CVE-2026-47262, CVE-2025-4437: the image's tables are read up to a bound.
pub(super) fn cve_2026_47262_tables_of_users_are_bounded() {
    for name in ["passwd", "group"] {
        let bundle = Bundle::new().set("/process/user/username", json!("web"));
        let path = bundle.rootfs().join("etc").join(name);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(1 << 40).unwrap();
        let begun = std::time::Instant::now();
        let text = report(&refused(bundle));
        assert!(text.contains(&format!("cannot read the container's /etc/{name}")), "{text}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }
}

/// CVE-2014-3499, CVE-2020-15257, CVE-2021-41103: what a state directory holds is for its owner, and its socket has no name that a
/// container on the host's network could reach.
pub(super) fn cve_2021_41103_state_is_private() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.path().join("state");
    let mut bundle = Bundle::new();
    let directory = StateDir::create(&root, &bundle.id.parse().unwrap()).unwrap();
    bundle.tuning.start_listener = Some(directory.start_listener().unwrap());
    let mut container = create(&mut bundle).unwrap();
    container.save(&directory, &bundle.rootfs(), Timestamp::now()).unwrap();
    for path in [root.clone(), root.join(&bundle.id)] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
    }
    for entry in fs::read_dir(root.join(&bundle.id)).unwrap() {
        let entry = entry.unwrap();
        let is_socket = entry.file_name() == "start.sock";
        assert!(is_socket || entry.metadata().unwrap().mode() & 0o077 == 0, "{:?}", entry.file_name());
    }
    let names = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!names.lines().any(|line| line.contains(" @") && line.contains(&bundle.id)), "{names}");
    Container::load(&directory).unwrap().container.delete().unwrap();
    assert!(!root.join(&bundle.id).exists());
}

/// CVE-2016-9962 in exec: a container that looks at everything that comes in never sees the runtime's descriptors, root or file.
pub(super) fn cve_2016_9962_who_joins_cannot_be_looked_into() {
    let script = "echo up; while true; do for p in /proc/[0-9]*; do \
                      e=$(readlink $p/exe); case $e in /bin/busybox|'') ;; *) echo \"saw $p $e\";; esac; \
                      r=$(readlink $p/root); case $r in /|'') ;; *) echo \"saw $p $r\";; esac; \
                      for f in $p/fd/*; do l=$(readlink $f); case $l in /dev/null|pipe:*|/proc/*|/|'') ;; *) echo \"saw $f $l\";; esac; done; \
                  done; done";
    let mut bundle =
        with_capabilities(Bundle::new(), &["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL"]).sh(script);
    let running = bundle.start();
    running.await_line("up");
    for _ in 0..30 {
        let (stdio, output) = pipes();
        let process = serde_json::from_value(process_value(&["true"])).unwrap();
        let added = running.container.exec(&process, stdio, &mut Vec::new()).unwrap();
        assert_eq!(crate::support::wait(&added), 0);
        drop(output);
    }
    let output = running.output;
    running.container.delete().unwrap();
    assert_eq!(crate::support::read_all(output), "");
}

/// CVE-2016-9962, CVE-2024-21626: a waiting init holds what it needs and nothing else that its creator had open.
pub(super) fn cve_2024_21626_a_waiting_init_holds_no_foreign_descriptor() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let _held = fs::File::open(secret.path()).unwrap();
    let (_ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut bundle = Bundle::new();
    let container = create(&mut bundle).unwrap();
    let links: Vec<String> = fs::read_dir(format!("/proc/{}/fd", container.init.pid))
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    assert!(!links.iter().any(|link| link.contains(secret.path().to_str().unwrap())), "{links:?}");
    // Its channel is the only socket.
    assert_eq!(links.iter().filter(|link| link.starts_with("socket:")).count(), 1, "{links:?}");
    container.delete().unwrap();
}
