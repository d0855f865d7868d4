//! `berth explain` against the kernel: what it says is what the files say, and every change by hand is seen and goes when it is undone.

use std::fs;
use std::process::Command;

use berth_testkit::Instance;
use serde_json::Value;

fn explain(berth: &Instance, container: &str) -> Value {
    serde_json::from_str(berth.berth(&["explain", "--json", container]).ok()).unwrap()
}

/// The line of an object.
#[track_caller]
fn line<'a>(report: &'a Value, section: &str, object: &str) -> &'a Value {
    let lines = report["lines"].as_array().unwrap();
    let found = lines.iter().find(|line| line["section"] == section && line["object"] == object);
    found.unwrap_or_else(|| panic!("{section} {object} in {report:#}"))
}

/// Objects that have drifted.
fn drifts(report: &Value) -> Vec<String> {
    let lines = report["lines"].as_array().unwrap().iter().filter(|line| !line["drift"].is_null());
    lines.map(|line| line["object"].as_str().unwrap().to_owned()).collect()
}

/// Runs a program of the container's in its mount namespace.
#[track_caller]
fn inside(pid: u32, words: &[&str]) {
    let status = Command::new("nsenter").args(["-t", &pid.to_string(), "-m", "-p", "--"]).args(words).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// Limits, capabilities, mounts and namespaces with the flag each comes from; the proof is a file that says the same.
#[test]
fn what_was_asked_is_in_force() {
    let berth = Instance::with_busybox();
    let data = berth.directory.join("data");
    fs::create_dir(&data).unwrap();
    let bind = format!("{}:/data:ro", data.display());
    let options = [
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "-v",
        &bind,
        "--tmpfs",
        "/scratch",
        "--cap-add",
        "SYS_TIME",
        "--ulimit",
        "nofile=100:200",
        "--read-only",
        "--device",
        "/dev/kmsg",
        "-p",
        "80",
        "-t",
    ];
    berth.sleeper("c1", &options);
    berth.sleeper("c2", &["--network", "container:c1", "--ipc", "host", "--userns", "host"]);
    let report = explain(&berth, "c1");
    assert_eq!(drifts(&report), Vec::<String>::new(), "{report:#}");
    let says = |section: &str, object: &str, in_force: &str, reason: &str| {
        let line = line(&report, section, object);
        assert!(line["in_force"].as_str().unwrap().contains(in_force), "{line:#}");
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line:#}");
        line["proof"].as_str().unwrap().to_owned()
    };
    for (object, value, reason) in [
        ("memory.limit_in_bytes", "67108864", "--memory"),
        ("memory.memsw.limit_in_bytes", "134217728", "default"),
        ("cpu.cfs_quota_us", "50000", "--cpus"),
        ("pids.max", "20", "--pids-limit"),
        ("cpu.shares", "1024", "the kernel's default"),
    ] {
        let proof = says("cgroup", object, value, reason);
        assert_eq!(fs::read_to_string(proof).unwrap().trim(), value);
    }
    says("mounts", "/", "overlay of 1 layer", "--read-only");
    says("mounts", "/data", "ro", "-v");
    says("mounts", "/scratch", "tmpfs", "--tmpfs");
    says("mounts", "/etc/hosts", "hosts", "written by the engine");
    says("mounts", "/proc/keys", "null", "masked");
    says("mounts", "/dev/console", "devpts", "--tty");
    let status = says("process", "capabilities, now", "SYS_TIME", "--cap-add");
    assert!(fs::read_to_string(status).unwrap().contains("CapEff"));
    says("process", "seccomp", "filter", "default profile");
    says("process", "limit nofile", "100:200", "--ulimit");
    says("devices", "c 1:11 rwm", "allowed", "--device");
    says("devices", "c 1:3 rwm", "allowed", "default");
    let bridge = format!("port of {}", berth.bridge());
    let lines = report["lines"].as_array().unwrap();
    assert!(
        lines.iter().any(|line| line["in_force"].as_str().is_some_and(|text| text.contains(&bridge))),
        "{report:#}"
    );
    let published = lines.iter().find(|line| line["object"].as_str().unwrap().starts_with("port *:")).unwrap();
    assert_eq!(published["in_force"], published["asked"]);
    // Namespaces: whose they are, and the inode that the kernel says.
    says("namespaces", "net", "shared with c2", "default");
    let proof = says("namespaces", "pid", "its own", "default");
    let inode = fs::read_link(proof).unwrap().display().to_string();
    says("namespaces", "pid", inode.trim_start_matches("pid:[").trim_end_matches(']'), "default");
    let other = explain(&berth, "c2");
    assert_eq!(drifts(&other), Vec::<String>::new(), "{other:#}");
    assert!(line(&other, "namespaces", "net")["in_force"].as_str().unwrap().ends_with("shared with c1"));
    assert_eq!(line(&other, "namespaces", "ipc")["reason"], "flag --ipc host");
}

/// Changes by hand are drift; undone, or asked for with `update`, they are none.
#[test]
fn drift() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["-m", "64m"]);
    let pid = berth.pid("c1");
    let none = Vec::<String>::new();
    let report = explain(&berth, "c1");
    assert_eq!(drifts(&report), none, "{report:#}");
    let proof = |section: &str, object: &str| line(&report, section, object)["proof"].as_str().unwrap().to_owned();
    let (limit, pids) = (proof("cgroup", "memory.limit_in_bytes"), proof("cgroup", "pids.max"));
    fs::write(&limit, "100663296").unwrap();
    fs::write(&pids, "7").unwrap();
    let changed = explain(&berth, "c1");
    assert_eq!(drifts(&changed), ["memory.limit_in_bytes", "pids.max"]);
    assert_eq!(line(&changed, "cgroup", "memory.limit_in_bytes")["in_force"], "100663296");
    let page = berth.berth(&["explain", "--drift", "c1"]);
    assert_eq!(page.code, 1);
    assert!(page.stdout.contains("! memory.limit_in_bytes  100663296, asked for 67108864"), "{page:?}");
    assert!(page.stdout.ends_with("2 drifts\n"), "{page:?}");
    fs::write(&limit, "67108864").unwrap();
    fs::write(&pids, "max").unwrap();
    assert_eq!(berth.berth(&["explain", "--drift", "c1"]).code, 0);
    berth.berth(&["update", "-m", "96m", "--memory-swap", "192m", "c1"]).ok();
    assert_eq!(drifts(&explain(&berth, "c1")), none, "an update is a wish");
    // Mounts: one more, one less, one with other options.
    inside(pid, &["/bin/mount", "-t", "tmpfs", "x", "/tmp"]);
    inside(pid, &["/bin/umount", "/dev/mqueue"]);
    inside(pid, &["/bin/mount", "-o", "remount,bind,rw", "/sys"]);
    let mut found = drifts(&explain(&berth, "c1"));
    found.sort();
    assert_eq!(found, ["/dev/mqueue", "/sys", "/tmp"]);
    // Devices and the freezer.
    let devices = line(&report, "devices", "c 1:3 rwm")["proof"].as_str().unwrap();
    fs::write(devices.replace("devices.list", "devices.allow"), "c 1:11 r").unwrap();
    fs::write(devices.replace("devices.list", "devices.deny"), "c 1:9 rwm").unwrap();
    let found = drifts(&explain(&berth, "c1"));
    assert!(found.contains(&"c 1:11 r".to_owned()) && found.contains(&"c 1:9 rwm".to_owned()), "{found:?}");
    berth.berth(&["pause", "c1"]).ok();
    let paused = explain(&berth, "c1");
    assert_eq!(line(&paused, "cgroup", "freezer.state")["drift"], Value::Null);
    assert_eq!(line(&paused, "cgroup", "freezer.state")["in_force"], "FROZEN");
    berth.berth(&["unpause", "c1"]).ok();
    // What does not run has nothing in the kernel.
    berth.berth(&["kill", "c1"]).ok();
    berth.berth(&["wait", "c1"]).ok();
    let refused = berth.berth(&["explain", "c1"]);
    assert!(refused.code == 125 && refused.stderr.contains("berth why c1"), "{refused:?}");
}

/// With user namespaces, host namespaces, privileges and another init nothing is drift either.
#[test]
fn no_false_alarm() {
    let berth = Instance::with_busybox();
    berth.sleeper("mapped", &["--userns", "auto", "-u", "1000", "--init", "--security-opt", "no-new-privileges"]);
    berth.sleeper("open", &["--privileged", "--network", "host", "--pid", "host"]);
    berth.sleeper("bare", &["--network", "none", "--security-opt", "seccomp=unconfined", "--cap-drop", "ALL"]);
    for name in ["mapped", "open", "bare"] {
        let report = explain(&berth, name);
        assert_eq!(drifts(&report), Vec::<String>::new(), "{name}: {report:#}");
    }
}
