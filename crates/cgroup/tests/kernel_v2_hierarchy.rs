//! What every v2 hierarchy has without controllers: devices by eBPF, freezing, `cgroup.kill`. Runs on v2 and hybrid hosts; needs root.

mod support;

use std::time::Duration;

use berth_cgroup::{DeviceRule, Layout, Resources, Version};
use berth_types::Signal;
use support::{TestGroup, WAIT, marked, moment, until};

/// The v2 part of this host alone, as if there were no v1 hierarchies, without controllers.
fn v2_only() -> Layout {
    let layout = Layout::detect().expect("cgroups");
    let mut unified = layout.unified.expect("these tests need a v2 hierarchy");
    unified.controllers.clear();
    Layout { version: Version::V2, hierarchies: Vec::new(), unified: Some(unified) }
}

/// S-053: the eBPF program says EPERM to a disallowed device and lets the others through.
#[test]
fn s053_kernel_v2_default_devices() {
    let test = TestGroup::with_layout(v2_only(), "v2devices");
    let nodes = tempfile::tempdir().unwrap();
    let nodes = nodes.path().display();
    let (code, stderr) = test.run(&format!("mknod {nodes}/mem c 1 1 && read line < {nodes}/mem"));
    assert!(!stderr.contains("not permitted"), "{code} {stderr}");
    test.apply(&Resources { devices: DeviceRule::container_defaults().to_vec(), ..Resources::default() });
    let (code, stderr) = test.run(&format!("mknod {nodes}/null c 1 3 && : > {nodes}/null && mknod {nodes}/x b 8 1"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (code, stderr) = test.run(&format!("read line < {nodes}/mem"));
    assert_ne!(code, 0);
    assert!(stderr.contains("Operation not permitted"), "{stderr}");
    // No rule for making nodes: mknod itself is refused.
    let only_null = vec![DeviceRule::DENY_ALL, "c 1:3 rw".parse().unwrap()];
    test.apply(&Resources { devices: only_null, ..Resources::default() });
    let (code, stderr) = test.run(&format!(": > {nodes}/null; mknod {nodes}/y c 1 3"));
    assert_ne!(code, 0);
    assert!(stderr.contains("mknod") && stderr.contains("Operation not permitted"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // The second program replaced the first, and a third one, that allows all, the second.
    let cgroup = test.group.cgroup_dir_fd().unwrap();
    assert_eq!(berth_sys::bpf::cgroup_device_programs(cgroup).unwrap().len(), 1);
    test.apply(&Resources { devices: vec![DeviceRule::ALLOW_ALL], ..Resources::default() });
    let (code, stderr) = test.run(&format!("mknod {nodes}/y c 1 3"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(berth_sys::bpf::cgroup_device_programs(cgroup).unwrap().len(), 1);
}

/// S-054, S-056
#[test]
fn s054_s056_kernel_v2_freeze_and_thaw() {
    let mut test = TestGroup::with_layout(v2_only(), "v2freeze");
    // With a handler: the kernel lets a signal that would end the process end it in the frozen state.
    let pid = test.spawn("trap 'exit 7' TERM; while :; do :; done");
    let used = |test: &TestGroup| test.group.stats().unwrap().cpu.total_ns;
    until("it runs", || used(&test) > 1_000_000);
    test.group.freeze(WAIT).unwrap();
    assert!(test.group.frozen().unwrap());
    let events = test.read("", "cgroup.events");
    assert!(events.contains("populated 1") && events.contains("frozen 1"), "{events}");
    let before = used(&test);
    moment(Duration::from_millis(100));
    assert_eq!(used(&test), before);
    test.group.kill_all(Signal::TERM, WAIT).unwrap();
    assert_eq!(test.group.pids().unwrap(), [pid]);
    test.group.thaw().unwrap();
    test.reap();
    assert_eq!(test.group.pids().unwrap(), []);
    assert!(!test.group.frozen().unwrap());
}

/// S-054: `cgroup.kill` also reaches a frozen group and groups below.
#[test]
fn s054_kernel_v2_kill() {
    let mut test = TestGroup::with_layout(v2_only(), "v2kill");
    test.spawn("while :; do :; done");
    let inner = berth_cgroup::Cgroup::create(&test.layout, &format!("{}/c/inner", test.parent)).unwrap();
    let moved = test.spawn("exec sleep 1000");
    inner.attach(moved).unwrap();
    assert_eq!(inner.pids().unwrap(), [moved]);
    assert_eq!(test.group.pids().unwrap().len(), 2);
    test.group.freeze(WAIT).unwrap();
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    assert_eq!(test.group.pids().unwrap(), []);
    test.reap();
    test.group.delete(WAIT).unwrap();
    assert!(inner.paths().values().all(|path| !path.exists()));
}

/// S-055: sixteen processes that fork without a pause. The pids controller may be elsewhere, so they wait for each child and never
/// become more than 32.
#[test]
fn s055_kernel_v2_fork_bombs_leave_nobody() {
    for round in 0..support::bombs() {
        let mut test = TestGroup::with_layout(v2_only(), "v2bomb");
        let mark = format!("BERTH_BOMB={}-v2-{round}", std::process::id());
        let bomb = "fork for 1..4; while (1) { exit if defined($p = fork) && $p == 0; wait }";
        test.spawn(&format!("export {mark}; exec perl -e '{bomb}'"));
        until("it multiplies", || test.group.pids().unwrap().len() >= 16);
        test.group.kill_all(Signal::KILL, WAIT).unwrap();
        assert_eq!(test.group.pids().unwrap(), [], "round {round}");
        test.reap();
        assert_eq!(marked(&mark), Vec::<String>::new(), "escaped in round {round}");
    }
}
