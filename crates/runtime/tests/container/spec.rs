//! What the specification has beyond the everyday: joined namespaces of every kind, options of mounts, devices, interfaces, labels.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use berth_runtime::{Container, RuntimeError};
use berth_types::{Classify, ErrorClass, report};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::{Value, json};

use super::namespaces::ns_inode;
use crate::support::{Bundle, pipes, process_value};

pub(super) fn create(bundle: &mut Bundle) -> Result<Container, RuntimeError> {
    bundle.create_with(pipes().0, &mut Vec::new())
}

pub(super) fn refused(mut bundle: Bundle) -> RuntimeError {
    match create(&mut bundle) {
        Ok(container) => {
            container.delete().unwrap();
            panic!("it was created");
        }
        Err(error) => error,
    }
}

fn refusal(bundle: Bundle) -> (ErrorClass, String) {
    let error = refused(bundle);
    (error.class(), report(&error))
}

fn namespaces(list: &[(&str, Option<String>)]) -> Value {
    let entries = list.iter().map(|(kind, path)| match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    });
    entries.collect()
}

/// S-021, S-162: a second container of a pod in the first one's user namespace. What is new belongs to that namespace.
pub(super) fn a_user_namespace_is_joined() {
    let mut first = Bundle::new().user_ns().overlay().sh("echo up; sleep 60");
    let running = first.start();
    running.await_line("up");
    let pid = running.container.init.pid.to_string();
    let path = |kind: &str| Some(format!("/proc/{pid}/ns/{kind}"));
    let mapped = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for (with_maps, shares_pids) in [(false, false), (true, true)] {
        let mut second = Bundle::new()
            .overlay()
            .sh("id -u; cat /proc/self/uid_map; touch /new; mkdir /m; mount -t tmpfs t /m && echo mounted; \
             stat -c %u /bin/busybox; echo up; sleep 60");
        let pids = if shares_pids { path("pid") } else { None };
        second.spec["linux"]["namespaces"] = namespaces(&[
            ("mount", None),
            ("cgroup", None),
            ("pid", pids),
            ("user", path("user")),
            ("network", path("net")),
            ("ipc", path("ipc")),
            ("uts", path("uts")),
        ]);
        second.spec["hostname"] = json!("");
        if with_maps {
            second.spec["linux"]["uidMappings"] = mapped.clone();
            second.spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
        }
        let joined = second.start();
        let text = joined.await_line("up");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "100000", "65536", "mounted", "0", "up"], "{text}");
        let other = joined.container.init.pid.to_string();
        for kind in ["user", "net", "ipc", "uts"] {
            assert_eq!(ns_inode(&pid, kind), ns_inode(&other, kind), "{kind}");
        }
        assert_eq!(ns_inode(&pid, "pid") == ns_inode(&other, "pid"), shares_pids);
        assert_eq!(fs::metadata(second.dir.path().join("pair/upper/new")).unwrap().uid(), 0, "mapped, not chowned");
        // Nobody but the two is left over from the way there.
        let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
        assert_eq!(children.split_whitespace().count(), 2, "{children}");
        let (code, text) = joined.exec(&process_value(&["sh", "-c", "id -u; cat /proc/self/uid_map"]));
        assert_eq!((code, text.split_whitespace().collect::<Vec<_>>()), (0, vec!["0", "0", "100000", "65536"]));
        joined.container.delete().unwrap();
    }
    let mut wrong = Bundle::new().overlay();
    wrong.spec["linux"]["namespaces"] = namespaces(&[
        ("mount", None),
        ("pid", None),
        ("user", path("user")),
        ("network", path("net")),
        ("ipc", path("ipc")),
    ]);
    wrong.spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    wrong.spec["linux"]["gidMappings"] = mapped;
    wrong.spec["hostname"] = json!("");
    let (_, text) = refusal(wrong);
    assert!(text.contains("compare-maps") && text.contains("other mappings"), "{text}");
    running.container.delete().unwrap();
}

/// A mount namespace somebody prepared gets the container's root; the runtime's own is refused.
pub(super) fn a_mount_namespace_is_joined() {
    let args = berth_sys::clone::CloneArgs {
        namespaces: berth_sys::clone::namespace_bits(rustix::thread::UnshareFlags::NEWNS),
        ..Default::default()
    };
    let holder = berth_sys::clone::clone_child(&args, || {
        let _never = rustix::event::poll(&mut [], None);
        0
    })
    .unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let joined = |path: String| {
        let mut bundle = Bundle::new().sh("ls /; echo up; sleep 60");
        bundle.spec["linux"]["namespaces"] =
            namespaces(&[("mount", Some(path)), ("pid", None), ("network", None), ("uts", None), ("ipc", None)]);
        bundle
    };
    let mut bundle = joined(format!("/proc/{}/ns/mnt", holder.pid));
    let running = bundle.start();
    assert_eq!(running.await_line("up"), "bin\ndev\netc\nproc\nroot\nsys\ntmp\nup\n");
    let pid = running.container.init.pid.to_string();
    assert_eq!(ns_inode(&pid, "mnt"), ns_inode(&holder.pid.to_string(), "mnt"));
    assert_eq!(running.exec(&process_value(&["ls", "/etc"])), (0, "group\npasswd\n".to_owned()));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    running.container.delete().unwrap();
    let (_, text) = refusal(joined("/proc/self/ns/mnt".to_owned()));
    assert!(text.contains("the runtime's own mount namespace"), "{text}");
    rustix::process::pidfd_send_signal(&holder.pidfd, rustix::process::Signal::KILL).unwrap();
    let id = rustix::process::WaitId::PidFd(holder.pidfd.as_fd());
    rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap();
}

/// runtime-spec config-linux, "Namespaces": the path must be one of the type; and what belongs to a namespace that is not asked for.
pub(super) fn contradictions_are_refused_by_field() {
    let mut wrong_kind = Bundle::new();
    wrong_kind.spec["linux"]["namespaces"] =
        namespaces(&[("mount", None), ("pid", None), ("uts", Some("/proc/self/ns/net".to_owned()))]);
    let (class, text) = refusal(wrong_kind);
    assert_eq!(class, ErrorClass::InvalidArgument, "{text}");
    let shared = json!([{"type": "mount"}, {"type": "pid"}]);
    let cases: Vec<(&str, Bundle)> = vec![
        ("hostname", Bundle::new().set("/linux/namespaces", shared.clone())),
        ("domainname", Bundle::new().set("/hostname", json!("")).set("/linux/namespaces", shared.clone()).set("/domainname", json!("d"))),
        ("linux.namespaces", Bundle::new().set("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]))),
        ("linux.timeOffsets", Bundle::new().set("/linux/timeOffsets", json!({"boottime": {"secs": 1}}))),
        ("linux.netDevices", Bundle::new().set("/hostname", json!("")).set("/linux/namespaces", shared).set("/linux/netDevices", json!({"lo": {}}))),
        ("ociVersion", Bundle::new().set("/ociVersion", json!("2.0.0"))),
        ("ociVersion", Bundle::new().set("/ociVersion", json!("one"))),
        ("windows", Bundle::new().set("/windows", json!({"layerFolders": []}))),
        ("annotations", Bundle::new().set("/annotations", json!({"": "x"}))),
        ("linux.maskedPaths", Bundle::new().set("/linux/maskedPaths", json!(["proc/kcore"]))),
        ("linux.readonlyPaths", Bundle::new().set("/linux/readonlyPaths", json!(["proc/sys"]))),
        ("linux.devices", Bundle::new().set("/linux/devices", json!([{"path": "dev/x", "type": "c", "major": 1, "minor": 3}]))),
        ("linux.devices", Bundle::new().set("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 3}]))),
        ("mounts", Bundle::new().mount(json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["bind", "idmap"]}))),
        ("mounts", Bundle::new().mount(json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["idmap"]}))),
        ("mounts", Bundle::new().mount(json!({"destination": "/x", "type": "mqueue", "source": "t", "options": ["tmpcopyup"]}))),
        ("mounts", Bundle::new().mount(json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["bind", "size=5"]}))),
        ("hooks", Bundle::new().set("/hooks", json!({"prestart": [{"path": "relative"}]}))),
        ("hooks", Bundle::new().set("/hooks", json!({"poststop": [{"path": "/x", "timeout": 0}]}))),
        ("linux.memoryPolicy", Bundle::new().set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}))),
        ("process.execCPUAffinity", Bundle::new().set("/process/execCPUAffinity", json!({"initial": "3-1"}))),
        ("process.oomScoreAdj", Bundle::new().set("/process/oomScoreAdj", json!(1001))),
        ("linux.seccomp", Bundle::new().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}))),
        ("linux.seccomp", Bundle::new().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}))),
        ("linux.seccomp", Bundle::new().set("/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}))),
        ("linux.seccomp", Bundle::new().set("/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}))),
    ];
    for (field, bundle) in cases {
        let spec = bundle.spec.clone();
        // A value that the document's own types refuse never becomes a spec.
        let Ok(_parsed) = serde_json::from_value::<berth_oci::runtime::Spec>(spec) else { continue };
        let (class, text) = refusal(bundle);
        assert_eq!(class, ErrorClass::InvalidArgument, "{field}: {text}");
        assert!(text.starts_with(&format!("the spec's {field} is not valid")), "{field}: {text}");
    }
    let mut host_mounts = Bundle::new().user_ns();
    host_mounts.spec["linux"]["namespaces"] = json!([{"type": "user"}, {"type": "pid"}, {"type": "uts"}]);
    let (class, text) = refusal(host_mounts);
    assert_eq!(class, ErrorClass::Unimplemented, "{text}");
}

/// Where a host has neither AppArmor nor SELinux nor resctrl, a container that wants them must not start as if it had them.
pub(super) fn what_the_host_lacks_is_said() {
    let lacks = |name: &str| !fs::read_to_string("/proc/filesystems").unwrap().contains(name);
    let has_apparmor =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let mut cases = Vec::new();
    if !has_apparmor {
        cases.push(("process.apparmorProfile", Bundle::new().set("/process/apparmorProfile", json!("some"))));
    }
    if lacks("selinuxfs") {
        cases.push(("process.selinuxLabel", Bundle::new().set("/process/selinuxLabel", json!("u:r:t:s0"))));
        cases.push(("linux.mountLabel", Bundle::new().set("/linux/mountLabel", json!("u:r:t:s0"))));
    }
    if lacks("resctrl") {
        cases.push(("linux.intelRdt", Bundle::new().set("/linux/intelRdt", json!({"closID": "x"}))));
    }
    for (field, bundle) in cases {
        let (class, text) = refusal(bundle);
        assert_eq!(class, ErrorClass::FailedPrecondition, "{text}");
        assert!(text.starts_with(&format!("{field} needs ")) && text.contains("this host does not have"), "{text}");
    }
    // A profile that means "none" needs nothing.
    assert_eq!(Bundle::new().set("/process/apparmorProfile", json!("unconfined")).sh("echo fine").output(), "fine\n");
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let mut process = process_value(&["true"]);
    process["selinuxLabel"] = json!("u:r:t:s0");
    let process = serde_json::from_value(process).unwrap();
    if lacks("selinuxfs") {
        let error = running.container.exec(&process, pipes().0, &mut Vec::new()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::FailedPrecondition, "{}", report(&error));
    }
    running.container.delete().unwrap();
}

/// S-014: every option of the table, on the mount itself and (with r) on everything below; the last one of a pair counts.
pub(super) fn s014_every_option_of_a_mount() {
    const PAIRS: [(&str, &str, &str); 8] = [
        ("ro", "rw", "ro"),
        ("nosuid", "suid", "nosuid"),
        ("nodev", "dev", "nodev"),
        ("noexec", "exec", "noexec"),
        ("nodiratime", "diratime", "nodiratime"),
        ("nosymfollow", "symfollow", "nosymfollow"),
        ("noatime", "atime", "noatime"),
        ("noatime", "relatime", "noatime"),
    ];
    let host = tempfile::tempdir().unwrap();
    rustix::mount::mount("tmpfs", host.path(), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    rustix::mount::mount("tmpfs", host.path().join("sub"), "tmpfs", MountFlags::empty(), None).unwrap();
    // Options, the flag in question, whether the top and the mount below have it.
    let mut cases: Vec<(Vec<String>, &str, bool, bool)> = Vec::new();
    for (set, clear, flag) in PAIRS {
        let (all_set, all_clear) = (format!("r{set}"), format!("r{clear}"));
        cases.push((vec![set.to_owned()], flag, true, false));
        cases.push((vec![all_set.clone()], flag, true, true));
        cases.push((vec![set.to_owned(), clear.to_owned()], flag, false, false));
        cases.push((vec![all_set, all_clear], flag, false, false));
    }
    cases.push((vec!["strictatime".to_owned()], "relatime", false, true));
    for option in ["rstrictatime", "rnorelatime"] {
        cases.push((vec![option.to_owned()], "relatime", false, false));
    }
    for option in ["norelatime", "defaults", "silent", "loud", "nostrictatime", "rnostrictatime", "relatime", "atime"] {
        cases.push((vec![option.to_owned()], "relatime", true, true));
    }
    let mut bundle = Bundle::new().sh("cut -d' ' -f5,6 /proc/self/mountinfo");
    for (index, (options, ..)) in cases.iter().enumerate() {
        let options: Vec<&str> = std::iter::once("rbind").chain(options.iter().map(String::as_str)).collect();
        let destination = format!("/v{index}");
        bundle = bundle
            .mount(json!({"destination": destination, "type": "none", "source": host.path(), "options": options}));
    }
    let text = bundle.output();
    let has = |path: &str, flag: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{path} "))).expect(path);
        line.split(',').any(|part| part == flag)
    };
    for (index, (options, flag, top, below)) in cases.iter().enumerate() {
        let found = (has(&format!("/v{index}"), flag), has(&format!("/v{index}/sub"), flag));
        assert_eq!(found, (*top, *below), "{options:?}: {flag}");
    }
    rustix::mount::unmount(host.path(), UnmountFlags::DETACH).unwrap();
}

pub(super) fn options_of_a_whole_file_system() {
    let options = json!(["sync", "dirsync", "lazytime", "iversion", "rro", "rnoexec"]);
    let text = Bundle::new()
        .mount(json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": options}))
        .mount(json!({"destination": "/u", "type": "tmpfs", "source": "t",
            "options": ["sync", "async", "lazytime", "nolazytime", "noiversion", "nomand", "size=4k"]}))
        .mount(json!({"destination": "/u", "source": "none", "options": ["remount", "ro", "size=8k"]}))
        .sh("grep -E ' /[tu] ' /proc/mounts | cut -d' ' -f2,4")
        .output();
    assert_eq!(text, "/t ro,sync,dirsync,lazytime,noexec,relatime\n/u ro,relatime,size=8k\n");
    let host = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new()
        .mount(json!({"destination": "/b", "type": "bind", "source": host.path(), "options": ["bind", "sync"]}))
        .sh("true");
    let running = bundle.start();
    assert_eq!(running.container.warnings, ["sync has no effect on the mount at /b"]);
    running.finish();
    let (_, text) = refusal(Bundle::new().mount(json!({"destination": "/tmp", "options": ["remount", "ro"]})));
    assert!(text.contains("cannot remount /tmp"), "{text}");
}

pub(super) fn rootfs_propagation() {
    let line = |asked: &str| {
        let mut bundle =
            Bundle::new().sh("head -1 /proc/self/mountinfo | sed 's/ - .*//; s/.*relatime *//; s/:[0-9]*//g'");
        let rootfs = bundle.rootfs();
        rustix::mount::mount_bind(&rootfs, &rootfs).unwrap();
        rustix::mount::mount_change(&rootfs, MountPropagationFlags::SHARED).unwrap();
        if !asked.is_empty() {
            bundle.spec["linux"]["rootfsPropagation"] = json!(asked);
        }
        let text = bundle.output();
        rustix::mount::unmount(&rootfs, UnmountFlags::DETACH).unwrap();
        text.trim().to_owned()
    };
    for (asked, expected) in [
        ("", ""),
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master"),
        ("rslave", "master"),
        ("shared", "shared"),
        ("rshared", "shared"),
        ("unbindable", "unbindable"),
    ] {
        assert_eq!(line(asked), expected, "{asked}");
    }
    let (_, text) = refusal(Bundle::new().set("/linux/rootfsPropagation", json!("sideways")));
    assert!(text.contains("linux.rootfsPropagation"), "{text}");
}

/// S-053
pub(super) fn s053_devices_of_the_spec() {
    let devices = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/below/block", "type": "b", "major": 7, "minor": 0},
        {"path": "/pipe", "type": "p", "fileMode": 0o622},
    ]);
    let text = Bundle::new()
        .set("/linux/devices", devices)
        .sh("stat -c '%n %F %t:%T %a %u:%g' /dev/fuse /dev/below/block /pipe; head -c1 /dev/below/block")
        .run()
        .1;
    let expected = "/dev/fuse character special file a:e5 640 3:4\n/dev/below/block block special file 7:0 666 0:0\n\
        /pipe fifo 0:0 622 0:0\nhead: /dev/below/block: Operation not permitted\n";
    assert_eq!(text, expected);
    // Something else of that name is an error, as the specification wants it, and stays as it was.
    let device = json!([{"path": "/etc/thing", "type": "c", "major": 1, "minor": 3}]);
    for is_link in [false, true] {
        let bundle = Bundle::new().set("/linux/devices", device.clone());
        let path = bundle.rootfs().join("etc/thing");
        if is_link {
            symlink("/dev/null", &path).unwrap();
        } else {
            fs::write(&path, "mine").unwrap();
        }
        let mut bundle = bundle;
        let error = create(&mut bundle).map(|container| container.delete()).unwrap_err();
        assert!(report(&error).contains("make device over something else at /etc/thing"), "{}", report(&error));
        assert_eq!(fs::symlink_metadata(&path).unwrap().is_symlink(), is_link);
    }
}

pub(super) fn clocks_in_a_user_namespace() {
    let mut bundle = Bundle::new().user_ns().overlay().sh("cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 2_000_000}, "monotonic": {"nanosecs": 5}});
    let text = bundle.output();
    let mut lines = text.lines();
    let uptime: u64 = lines.next().unwrap().parse().unwrap();
    assert!(uptime > 2_000_000, "{uptime}");
    let own = fs::read_link("/proc/self/ns/time").unwrap();
    assert_ne!(lines.next().unwrap(), own.to_str().unwrap());
}

pub(super) fn domainname_by_sysctl_and_personality() {
    let text = Bundle::new()
        .set("/linux/sysctl", json!({"kernel.domainname": "example.test"}))
        .set("/linux/personality", json!({"domain": "LINUX32"}))
        .sh("cat /proc/sys/kernel/domainname; uname -m")
        .output();
    let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
    assert_eq!(text, format!("example.test\n{machine}\n"));
    let mut both = Bundle::new().set("/linux/sysctl", json!({"kernel.domainname": "example.test"}));
    both.spec["domainname"] = json!("other");
    assert!(refusal(both).1.contains("use hostname and domainname"));
    assert!(refusal(Bundle::new().set("/linux/sysctl", json!({"kernel.hostname": "x"}))).1.contains("linux.sysctl"));
}

pub(super) fn memory_policy_is_kept_over_exec() {
    let policy = |value: Value| {
        Bundle::new().set("/linux/memoryPolicy", value).sh("head -1 /proc/self/numa_maps | cut -d' ' -f2")
    };
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        let mut bundle = policy(json!({"mode": "MPOL_BIND", "nodes": "0"}));
        assert!(report(&create(&mut bundle).unwrap_err()).contains("set-memory-policy"));
        return;
    }
    assert_eq!(policy(json!({"mode": "MPOL_BIND", "nodes": "0"})).output(), "bind:0\n");
    let asked = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(policy(asked).output(), "interleave=static:0\n");
    assert_eq!(policy(json!({"mode": "MPOL_DEFAULT"})).output(), "default\n");
    let mut none = policy(json!({"mode": "MPOL_BIND", "nodes": "1000"}));
    assert!(report(&create(&mut none).unwrap_err()).contains("set-memory-policy"));
}

pub(super) fn cpus_of_an_added_process() {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut bundle = Bundle::new().sh("grep Cpus_allowed_list /proc/self/status; echo up; sleep 60");
    let last = count - 1;
    // Not applicable to init: there it changes nothing.
    bundle.spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": last.to_string()});
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned();
    let running = bundle.start();
    assert_eq!(running.await_line("up"), format!("{own}\nup\n"));
    // For a process that names none the container's hold; one that names its own has those.
    let mut process = process_value(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(running.exec(&process), (0, format!("Cpus_allowed_list:\t{last}\n")));
    process["execCPUAffinity"] = json!({"final": "0"});
    assert_eq!(running.exec(&process), (0, "Cpus_allowed_list:\t0\n".to_owned()));
    let after = fs::read_to_string("/proc/self/status").unwrap();
    assert!(after.contains(&own), "the caller is where it was");
    process["execCPUAffinity"] = json!({"initial": "1000"});
    let value = serde_json::from_value(process).unwrap();
    let error = running.container.exec(&value, pipes().0, &mut Vec::new()).unwrap_err();
    assert!(report(&error).contains("pin-caller"), "{}", report(&error));
    running.container.delete().unwrap();
}

pub(super) fn deadline_scheduler_with_a_hook_inside() {
    let attributes =
        |policy: &str| json!({"policy": policy, "runtime": 1_000_000, "deadline": 20_000_000, "period": 20_000_000});
    let mut bundle = Bundle::new().set("/process/scheduler", attributes("SCHED_DEADLINE")).args(&[
        "cut",
        "-d ",
        "-f41",
        "/proc/self/stat",
    ]);
    bundle.spec["hooks"] = json!({"startContainer": [{"path": "/bin/true", "args": ["true"]}]});
    let (stdio, output) = pipes();
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    match container.start(&mut Vec::new()) {
        Ok(()) => assert_eq!(crate::support::read_all(output), "6\n"),
        // A host may reserve it (no bandwidth left, a cpuset, no CAP_SYS_NICE); then it says at which step.
        Err(error) => assert!(report(&error).contains("set-scheduler"), "{}", report(&error)),
    }
    container.delete().unwrap();
    let (stdio, output) = pipes();
    let mut bundle = Bundle::new()
        .set("/process/scheduler", json!({"policy": "SCHED_IDLE", "flags": ["SCHED_RESET_ON_FORK"]}))
        .args(&["cut", "-d ", "-f41", "/proc/self/stat"]);
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    container.start(&mut Vec::new()).unwrap();
    assert_eq!(crate::support::read_all(output), "5\n");
    container.delete().unwrap();
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip(8)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// runtime-spec config-linux, "Network Devices"
pub(super) fn interfaces_move_with_their_addresses() {
    berth_sys::namespace::unshare_namespaces(rustix::thread::UnshareFlags::NEWNET).unwrap();
    ip("link add berth0 type veth peer name berth1");
    ip("link add berth2 type veth peer name berth3");
    ip("addr add 10.99.0.2/24 dev berth0");
    ip("addr add fd99::2/64 dev berth0 nodad");
    ip("addr add 169.254.7.7/16 scope link dev berth0");
    ip("link set berth0 up");
    let script = "ip -o addr show dev inner | sed 's/  */ /g; s/ *\\\\.*//' | cut -d' ' -f2-4 | grep -v fe80; \
                  ip -o link | grep -cE 'inner.*[<,]UP[,>]'; ip -o link | grep -c ' d0'";
    let devices = json!({"berth0": {"name": "inner"}, "berth2": {"name": "d%d"}});
    let mut bundle = Bundle::new().set("/linux/netDevices", devices.clone()).sh(script);
    assert_eq!(bundle.output(), "inner inet 10.99.0.2/24\ninner inet6 fd99::2/64\n1\n1\n");
    // What dies with the namespace is gone, as the specification leaves it to the kernel.
    assert!(!fs::read_to_string("/proc/net/dev").unwrap().contains("berth0:"));
    ip("link add berth4 type veth peer name berth5");
    ip("addr add 10.99.0.2/24 dev berth4");
    ip("link set berth4 up");
    // A creation that fails later gives them back as they were.
    let mut bundle = Bundle::new().set("/linux/netDevices", json!({"berth4": {"name": "inner"}}));
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle = bundle.mount(json!({"destination": "/x", "type": "nosuchfs", "source": "x"}));
    let text = report(&create(&mut bundle).unwrap_err());
    assert!(text.contains("nosuchfs"), "{text}");
    let shown = Command::new("ip").args(["-o", "addr", "show", "dev", "berth4"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("10.99.0.2/24"), "{shown:?}");
    let link = Command::new("ip").args(["-o", "link", "show", "dev", "berth4"]).output().unwrap();
    assert!(String::from_utf8_lossy(&link.stdout).contains(",UP"), "{link:?}");
    for (device, problem) in
        [(json!({"nope": {}}), "no interface of this name"), (json!({"berth4": {"name": "lo"}}), "already")]
    {
        let text = report(&refused(Bundle::new().set("/linux/netDevices", device)));
        assert!(text.contains(problem), "{text}");
    }
}

pub(super) fn preserved_descriptors_are_those_asked_for() {
    use rustix::fs::{Mode, OFlags};
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "passed\n").unwrap();
    let opened = rustix::fs::open(file.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
    let count = u32::try_from(number - 2).unwrap();
    for lower in 3..number {
        // Whatever else is open below it counts as passed on as well.
        assert!(berth_sys::process::keep_fd(u32::try_from(lower).unwrap()).is_ok(), "{lower}");
    }
    let mut bundle = Bundle::new().sh(&format!("cat <&{number}; ls /proc/self/fd | wc -l"));
    bundle.tuning.preserve_fds = count;
    // The listing opens one more.
    assert_eq!(bundle.output(), format!("passed\n{}\n", 3 + count + 1));
    let mut bundle = Bundle::new().sh("true");
    bundle.tuning.preserve_fds = count + 1000;
    let error = create(&mut bundle).unwrap_err();
    assert!(report(&error).contains("is not open"), "{}", report(&error));
}
