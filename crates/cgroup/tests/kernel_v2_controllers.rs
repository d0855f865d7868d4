//! Limits on a pure v2 host. Run inside a virtual machine: `cargo test -p berth-cgroup --test kernel_v2_controllers -- --ignored`.

mod support;

use std::time::Duration;

use berth_cgroup::{BlockIo, Cgroup, CgroupError, Controller, Cpu, Memory, Resources, ThrottleDevice, Version, plan};
use berth_types::{Classify, ErrorClass, Signal};
use support::{TestGroup, WAIT, disk, readable, until};

const MEBIBYTE: i64 = 1 << 20;

fn group(name: &str) -> TestGroup {
    let test = TestGroup::new(name);
    assert_eq!(test.layout.version, Version::V2, "needs a host with cgroup v2 alone");
    for controller in [Controller::Cpu, Controller::Memory, Controller::BlockIo, Controller::Pids] {
        assert!(test.layout.has(controller), "needs the controller {controller}");
    }
    test
}

fn limits(limit: i64, swap: i64) -> Resources {
    Resources { memory: Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }, ..Resources::default() }
}

/// S-041
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s041_kernel_v2_the_process_is_in_the_group() {
    let mut test = group("attach");
    assert!(test.group.attach_fds().unwrap().is_empty());
    let pid = test.spawn("exec sleep 1000");
    assert_eq!(test.read("", "cgroup.procs"), pid.as_raw_nonzero().to_string());
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    assert!(membership.contains(&format!("0::{}/c\n", test.parent)), "{membership}");
}

/// S-042, S-043, S-050, S-051, S-058, S-060: what the files hold.
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s042_s043_s050_s051_s058_s060_kernel_v2_files() {
    let test = group("files");
    let (major, minor) = disk();
    let rate = |rate| vec![ThrottleDevice { major, minor, rate }];
    test.apply(&Resources {
        cpu: Cpu { shares: Some(512), quota_us: Some(50_000), period_us: Some(100_000), ..Cpu::default() },
        memory: Memory {
            limit: Some(64 * MEBIBYTE),
            reservation: Some(32 * MEBIBYTE),
            check_before_update: true,
            ..Memory::default()
        },
        pids_limit: Some(20),
        block_io: BlockIo {
            read_bps: rate(1_048_576),
            write_bps: rate(2_097_152),
            write_iops: rate(100),
            ..BlockIo::default()
        },
        unified: [("memory.high".to_owned(), "50331648".to_owned())].into(),
        ..Resources::default()
    });
    for (file, value) in [
        ("cpu.weight", "59"),
        ("cpu.max", "50000 100000"),
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("pids.max", "20"),
        ("io.max", &format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=max wiops=100")),
    ] {
        assert_eq!(test.read("", file), value, "{file}");
    }
    test.apply(&Resources {
        memory: Memory { limit: Some(-1), ..Memory::default() },
        pids_limit: Some(-1),
        ..Resources::default()
    });
    assert_eq!(test.read("", "memory.max"), "max");
    assert_eq!(test.read("", "pids.max"), "max");
}

/// S-051
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s051_kernel_v2_quota_is_in_force() {
    let mut test = group("cpu");
    let cpu = Cpu { quota_us: Some(2_000), period_us: Some(100_000), ..Cpu::default() };
    test.apply(&Resources { cpu, ..Resources::default() });
    test.spawn("while :; do :; done");
    until("throttling is counted", || test.group.stats().unwrap().cpu.throttled_periods > 0);
    let stats = test.group.stats().unwrap().cpu;
    assert!(stats.total_ns > 0 && stats.percpu_ns.is_empty() && stats.periods > 0);
}

/// S-052
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s052_kernel_v2_oom_is_told() {
    let mut test = group("oom");
    test.apply(&limits(32 * MEBIBYTE, 32 * MEBIBYTE));
    let bystander = test.spawn("exec sleep 1000");
    let watch = test.group.oom_watch().unwrap();
    assert!(!readable(&watch, Duration::ZERO));
    let (code, _) = test.run("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(code, -9);
    assert!(readable(&watch, WAIT));
    assert_eq!(test.group.oom_kills().unwrap(), 1);
    assert!(test.read("", "memory.events").contains("oom_kill 1"));
    assert_eq!(test.group.pids().unwrap(), [bystander]);
    let memory = test.group.stats().unwrap().memory;
    assert_eq!((memory.oom_kills, memory.limit, memory.usage > 0), (1, Some(33_554_432), true));
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    test.reap();
    test.group.delete(WAIT).unwrap();
    assert!(readable(&watch, WAIT));
    assert_eq!(test.group.oom_kills().unwrap_err().class(), ErrorClass::FailedPrecondition);
}

/// A new limit below what is in use is refused when that was asked for, instead of killing.
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn kernel_v2_check_before_update() {
    let mut test = group("check");
    test.spawn("exec sleep 1000");
    until("it uses memory", || test.group.stats().unwrap().memory.usage > 4096);
    let memory = Memory { limit: Some(4096), check_before_update: true, ..Memory::default() };
    let settings = plan(&test.layout, &Resources { memory, ..Resources::default() }).unwrap();
    let error = test.group.apply(&settings).unwrap_err();
    assert!(matches!(error, CgroupError::LimitBelowUsage { limit: 4096, .. }), "{error}");
    assert_eq!(test.read("", "memory.max"), "max");
    assert_eq!(test.group.pids().unwrap().len(), 1);
}

/// S-060
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s060_kernel_v2_the_fork_above_the_limit_fails() {
    let test = group("pids");
    test.apply(&Resources { pids_limit: Some(3), ..Resources::default() });
    let (_, stderr) = test.run("sleep 0 & sleep 0 & sleep 1 & sleep 1 & sleep 1 & wait");
    assert!(stderr.contains("fork"), "{stderr}");
    let pids = test.group.stats().unwrap().pids;
    assert_eq!(pids.limit, Some(3));
    assert!(pids.refused >= 1);
    assert!(test.read("", "pids.events").starts_with("max "));
}

/// S-055, S-054: `cgroup.kill` against a fork bomb.
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn s055_kernel_v2_fork_bombs_leave_nobody() {
    for round in 0..support::bombs() {
        let mut test = group("bomb");
        test.apply(&Resources { pids_limit: Some(32), ..Resources::default() });
        let mark = format!("BERTH_BOMB={}-{round}", std::process::id());
        test.spawn(&format!("export {mark}; exec perl -e 'fork while 1'"));
        until("it multiplies", || test.group.pids().unwrap().len() > 16);
        test.group.kill_all(Signal::KILL, WAIT).unwrap();
        assert_eq!(test.group.pids().unwrap(), [], "round {round}");
        test.reap();
        assert_eq!(support::marked(&mark), Vec::<String>::new(), "escaped in round {round}");
    }
}

/// Controllers are enabled on the way down, also below a parent made by somebody else without them.
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn kernel_v2_controllers_are_enabled_on_the_way() {
    let test = group("enable");
    let parent = test.file("", "").join("../bare");
    std::fs::create_dir(&parent).unwrap();
    let deep = Cgroup::create(&test.layout, &format!("{}/bare/deep", test.parent)).unwrap();
    let settings = plan(&test.layout, &Resources { pids_limit: Some(5), ..Resources::default() }).unwrap();
    deep.apply(&settings).unwrap();
    let path = &deep.paths()[""];
    assert_eq!(std::fs::read_to_string(path.join("pids.max")).unwrap(), "5\n");
    assert!(std::fs::read_to_string(path.join("cgroup.controllers")).unwrap().contains("memory"));
}

/// Pressure is what the kernel's files say, where it has them.
#[test]
#[ignore = "needs cgroup v2 with controllers: run in the test VM"]
fn kernel_v2_pressure_is_the_kernels() {
    let mut test = group("pressure");
    test.apply(&Resources {
        cpu: Cpu { quota_us: Some(2_000), period_us: Some(100_000), ..Cpu::default() },
        ..Resources::default()
    });
    test.spawn("while :; do :; done");
    let has = test.file("", "cpu.pressure").exists();
    if !has {
        assert_eq!(test.group.stats().unwrap().cpu.pressure, None);
        return;
    }
    until("it waits for the processor", || {
        test.group.stats().unwrap().cpu.pressure.is_some_and(|pressure| pressure.some.total_us > 100_000)
    });
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    test.reap();
    let text = test.read("", "cpu.pressure");
    let total = test.group.stats().unwrap().cpu.pressure.unwrap().some.total_us;
    assert!(text.lines().next().unwrap().ends_with(&format!(" total={total}")), "{total} in {text}");
}
