//! Groups on a host with v1 hierarchies (pure or hybrid): needs root. What has to differ on v2 is in `kernel_v2_*`.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cgroup::{
    BlockIo, Cgroup, CgroupError, Cpu, DeviceRule, Layout, Memory, Missing, Resources, ThrottleDevice, Version, plan,
};
use berth_types::{Classify, ErrorClass, Signal, report};
use support::{TestGroup, WAIT, disk, marked, moment, readable, until};

const MEBIBYTE: i64 = 1 << 20;

fn limits(limit: i64, swap: i64) -> Resources {
    Resources { memory: Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }, ..Resources::default() }
}

#[test]
fn create_makes_a_directory_everywhere_and_delete_leaves_none() {
    let test = TestGroup::new("life");
    assert_ne!(test.layout.version, Version::V2, "this test is for hosts with v1 hierarchies");
    let paths = test.group.paths();
    assert_eq!(
        paths.len(),
        test.layout.hierarchies.iter().map(|h| h.controllers.len()).sum::<usize>()
            + usize::from(test.layout.unified.is_some())
    );
    for path in paths.values() {
        assert!(path.is_dir(), "{}", path.display());
    }
    assert_eq!(test.group.pids().unwrap(), []);
    // Made again is the same group; groups below it go along.
    let below = Cgroup::create(&test.layout, &format!("{}/c/x/y", test.parent)).unwrap();
    assert!(below.paths().values().all(|path| path.is_dir()));
    Cgroup::create(&test.layout, &format!("{}/c", test.parent)).unwrap();
    test.group.delete(WAIT).unwrap();
    assert!(paths.values().all(|path| !path.exists()));
    test.group.delete(Duration::ZERO).unwrap();
    let error = Cgroup::open(&test.layout, &format!("{}/c", test.parent)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound);
}

#[test]
fn a_failed_create_takes_back_what_it_made() {
    let mut layout = Layout::detect().unwrap();
    let broken = layout.hierarchies.last_mut().unwrap();
    broken.mount = "/proc/sys".into();
    let name = format!("/berth-test-{}-broken/c", std::process::id());
    let error = Cgroup::create(&layout, &name).unwrap_err();
    assert!(matches!(error, CgroupError::Create { .. }), "{error}");
    for hierarchy in &layout.hierarchies[..layout.hierarchies.len() - 1] {
        let parent = hierarchy.mount.join(name.trim_matches('/').split('/').next().unwrap());
        assert!(!parent.exists(), "{}", parent.display());
    }
}

/// S-041: the process put itself into every controller's group.
#[test]
fn s041_a_child_attaches_itself_everywhere() {
    let mut test = TestGroup::new("attach");
    let pid = test.spawn("exec sleep 1000");
    let number = pid.as_raw_nonzero().to_string();
    for (controller, path) in test.group.paths() {
        let procs = std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|line| line == number), "{controller:?}: {procs}");
    }
    assert_eq!(test.group.pids().unwrap(), [pid]);
    let membership = std::fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap();
    let inside = format!("{}/c", test.parent);
    // A hierarchy without a mount here (another test's, in its own namespace) is none of ours.
    let is_ours = |line: &&str| {
        let names = line.split(':').nth(1).unwrap_or_default();
        test.group.paths().keys().any(|own| names.split(',').any(|name| name == own))
    };
    let ours: Vec<&str> = membership.lines().filter(is_ours).collect();
    assert!(ours.len() > 1 && ours.iter().all(|line| line.ends_with(&inside)), "{membership}");
}

/// S-042, S-043, S-051, S-057, S-058, S-060: what the files hold.
#[test]
fn s042_s043_s051_s057_s058_s060_the_files_hold_the_limits() {
    let test = TestGroup::new("files");
    let (major, minor) = disk();
    let rate = |rate| vec![ThrottleDevice { major, minor, rate }];
    test.apply(&Resources {
        cpu: Cpu {
            shares: Some(512),
            quota_us: Some(50_000),
            period_us: Some(100_000),
            burst_us: Some(10_000),
            cpus: "0".into(),
            mems: "0".into(),
            ..Cpu::default()
        },
        memory: Memory {
            limit: Some(64 * MEBIBYTE),
            swap: Some(128 * MEBIBYTE),
            reservation: Some(32 * MEBIBYTE),
            swappiness: Some(10),
            disable_oom_killer: true,
            check_before_update: false,
        },
        pids_limit: Some(20),
        block_io: BlockIo {
            read_bps: rate(1_048_576),
            write_bps: rate(2_097_152),
            read_iops: rate(50),
            write_iops: rate(100),
            ..BlockIo::default()
        },
        ..Resources::default()
    });
    let expected = [
        ("cpu", "cpu.shares", "512".to_owned()),
        ("cpu", "cpu.cfs_quota_us", "50000".to_owned()),
        ("cpu", "cpu.cfs_period_us", "100000".to_owned()),
        ("cpu", "cpu.cfs_burst_us", "10000".to_owned()),
        ("cpuset", "cpuset.cpus", "0".to_owned()),
        ("cpuset", "cpuset.mems", "0".to_owned()),
        ("memory", "memory.limit_in_bytes", "67108864".to_owned()),
        ("memory", "memory.memsw.limit_in_bytes", "134217728".to_owned()),
        ("memory", "memory.soft_limit_in_bytes", "33554432".to_owned()),
        ("memory", "memory.swappiness", "10".to_owned()),
        ("pids", "pids.max", "20".to_owned()),
        ("blkio", "blkio.throttle.read_bps_device", format!("{major}:{minor} 1048576")),
        ("blkio", "blkio.throttle.write_bps_device", format!("{major}:{minor} 2097152")),
        ("blkio", "blkio.throttle.read_iops_device", format!("{major}:{minor} 50")),
        ("blkio", "blkio.throttle.write_iops_device", format!("{major}:{minor} 100")),
    ];
    for (controller, file, value) in expected {
        assert_eq!(test.read(controller, file), value, "{file}");
    }
    assert!(test.read("memory", "memory.oom_control").starts_with("oom_kill_disable 1"));
}

#[test]
fn limits_may_move_up_and_down_in_any_order() {
    let test = TestGroup::new("moves");
    let memory = |file| test.read("memory", file);
    for (limit, swap) in [(64, 128), (256, 512), (512, 512), (32, 32), (16, 1024), (-1, -1), (8, 8)] {
        let bytes = |value: i64| if value < 0 { value } else { value * MEBIBYTE };
        test.apply(&limits(bytes(limit), bytes(swap)));
        let shown =
            |value: i64| if value < 0 { "9223372036854771712".to_owned() } else { (value * MEBIBYTE).to_string() };
        assert_eq!(memory("memory.limit_in_bytes"), shown(limit));
        assert_eq!(memory("memory.memsw.limit_in_bytes"), shown(swap));
    }
    for (quota, burst) in [(50_000, 50_000), (10_000, 5_000), (90_000, 90_000), (5_000, 0)] {
        let cpu = Cpu { quota_us: Some(quota), burst_us: Some(burst), ..Cpu::default() };
        test.apply(&Resources { cpu, ..Resources::default() });
        assert_eq!(test.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(test.read("cpu", "cpu.cfs_burst_us"), burst.to_string());
    }
}

#[test]
fn a_refused_value_names_limit_file_value_and_errno() {
    let test = TestGroup::new("refused");
    let cpu = Cpu { cpus: "4000".into(), ..Cpu::default() };
    let settings = plan(&test.layout, &Resources { cpu, ..Resources::default() }).unwrap();
    let error = test.group.apply(&settings).unwrap_err();
    let file = test.file("cpuset", "cpuset.cpus");
    let text = report(&error);
    assert!(
        text.starts_with(&format!("cannot set cpu.cpus: writing \"4000\" to {} failed: ", file.display())),
        "{text}"
    );
    // A file the kernel lacks: the scheduler that had leaf weights is gone since Linux 5.0.
    let block_io = BlockIo { leaf_weight: Some(100), ..BlockIo::default() };
    let settings = plan(&test.layout, &Resources { block_io, ..Resources::default() }).unwrap();
    assert!(matches!(settings[0].missing, Missing::Fail(_)));
    let error = test.group.apply(&settings).unwrap_err();
    let file = test.file("blkio", "blkio.leaf_weight");
    assert_eq!(error.to_string(), format!("cannot set block_io.leaf_weight: this host has no {}", file.display()));
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert!(error.hint().unwrap().contains("leave leaf_weight unset"));
}

/// S-051: the processor list is in force for the process.
#[test]
fn s051_cpuset_and_quota_are_in_force() {
    let mut test = TestGroup::new("cpu");
    let cpu = Cpu { cpus: "0".into(), quota_us: Some(2_000), period_us: Some(100_000), ..Cpu::default() };
    test.apply(&Resources { cpu, ..Resources::default() });
    let pid = test.spawn("while :; do :; done");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    until("throttling is counted", || test.group.stats().unwrap().cpu.throttled_periods > 0);
}

/// S-053: `devices.list`, and what it does to a process.
#[test]
fn s053_default_devices() {
    let test = TestGroup::new("devices");
    test.apply(&Resources { devices: DeviceRule::container_defaults().to_vec(), ..Resources::default() });
    assert_eq!(
        test.read("devices", "devices.list").lines().collect::<Vec<_>>(),
        [
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm",
            "c 136:* rwm"
        ]
    );
    let nodes = tempfile::tempdir().unwrap();
    let nodes = nodes.path().display();
    let (code, stderr) = test.run(&format!("mknod {nodes}/null c 1 3 && : > {nodes}/null && mknod {nodes}/mem c 1 1"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (code, stderr) = test.run(&format!("read line < {nodes}/mem"));
    assert_ne!(code, 0);
    assert!(stderr.contains("Operation not permitted"), "{stderr}");
    // A device of one's own on top: node and rule (`--device`).
    let mut rules = DeviceRule::container_defaults().to_vec();
    rules.push("c 1:1 r".parse().unwrap());
    test.apply(&Resources { devices: rules, ..Resources::default() });
    let (code, stderr) =
        test.run(&format!("dd if={nodes}/mem of=/dev/null bs=1 count=1 2>&1 | grep -q 'not permitted'"));
    assert_ne!(code, 0, "{stderr}");
    // Privileged: everything.
    test.apply(&Resources { devices: vec![DeviceRule::ALLOW_ALL], ..Resources::default() });
    assert_eq!(test.read("devices", "devices.list"), "a *:* rwm");
}

/// S-054, S-056: frozen before anything else, CPU time stands still, and goes on.
#[test]
fn s054_s056_freeze_and_thaw() {
    let mut test = TestGroup::new("freeze");
    let pids = [test.spawn("while :; do :; done"), test.spawn("exec sleep 1000")];
    let used = |test: &TestGroup| test.group.stats().unwrap().cpu.total_ns;
    until("it runs", || used(&test) > 1_000_000);
    assert!(!test.group.frozen().unwrap());
    test.group.freeze(WAIT).unwrap();
    assert!(test.group.frozen().unwrap());
    assert_eq!(test.read("freezer", "freezer.state"), "FROZEN");
    let before = used(&test);
    moment(Duration::from_millis(100));
    assert_eq!(used(&test), before);
    // A signal does not wake a frozen group.
    test.group.kill_all(Signal::TERM, WAIT).unwrap();
    assert_eq!(test.group.pids().unwrap().len(), pids.len());
    assert!(test.group.frozen().unwrap());
    test.group.thaw().unwrap();
    assert_eq!(test.read("freezer", "freezer.state"), "THAWED");
    test.reap();
    assert_eq!(test.group.pids().unwrap(), []);
}

#[test]
fn s054_sigkill_reaches_a_frozen_group() {
    let mut test = TestGroup::new("frozenkill");
    test.spawn("while :; do :; done");
    test.group.freeze(WAIT).unwrap();
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    assert_eq!(test.group.pids().unwrap(), []);
    assert_eq!(test.read("freezer", "freezer.state"), "THAWED");
}

/// S-055: a fork bomb cannot outrun the kill, with `cgroup.kill` and without.
#[test]
fn s055_fork_bombs_leave_nobody() {
    let full = Layout::detect().unwrap();
    let bare = Layout { unified: None, version: Version::V1, ..full.clone() };
    for (name, layout) in [("bomb", full), ("bombv1", bare)] {
        for round in 0..support::bombs() {
            let mut test = TestGroup::with_layout(layout.clone(), name);
            test.apply(&Resources { pids_limit: Some(32), ..Resources::default() });
            let mark = format!("BERTH_BOMB={}-{name}-{round}", std::process::id());
            // A refused fork ends no process of it (a shell would give up).
            test.spawn(&format!("export {mark}; exec perl -e 'fork while 1'"));
            until("it multiplies", || test.group.pids().unwrap().len() > 16);
            test.group.kill_all(Signal::KILL, WAIT).unwrap();
            assert_eq!(test.group.pids().unwrap(), [], "round {round}");
            test.reap();
            assert_eq!(marked(&mark), Vec::<String>::new(), "escaped in round {round}");
        }
    }
}

/// A process that got no further than some of the hierarchies is found and killed as well.
#[test]
fn s055_half_attached_processes_die_too() {
    let test = TestGroup::new("half");
    let bare = Layout { hierarchies: test.layout.hierarchies[..1].to_vec(), unified: None, version: Version::V1 };
    let first = Cgroup::open(&bare, &format!("{}/c", test.parent)).unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    first.attach(pid).unwrap();
    assert_eq!(test.group.pids().unwrap(), [pid]);
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    assert_eq!(test.group.pids().unwrap(), []);
}

/// S-060: the fork above the limit is refused, and counted.
#[test]
fn s060_the_fork_above_the_limit_fails() {
    let test = TestGroup::new("pids");
    test.apply(&Resources { pids_limit: Some(3), ..Resources::default() });
    let (_, stderr) = test.run("sleep 0 & sleep 0 & sleep 1 & sleep 1 & sleep 1 & wait");
    assert!(stderr.contains("fork"), "{stderr}");
    let pids = test.group.stats().unwrap().pids;
    assert_eq!(pids.limit, Some(3));
    assert!(pids.refused >= 1);
}

/// S-052: the watch fires, the kill is counted, nobody else dies.
#[test]
fn s052_oom_is_told() {
    let mut test = TestGroup::new("oom");
    test.apply(&limits(32 * MEBIBYTE, 64 * MEBIBYTE));
    let bystander = test.spawn("exec sleep 1000");
    let watch = test.group.oom_watch().unwrap();
    assert!(!readable(&watch, Duration::ZERO));
    assert_eq!(test.group.oom_kills().unwrap(), 0);
    let (code, _) = test.run("exec dd if=/dev/zero of=/dev/null bs=128M count=1");
    assert_eq!(code, -9);
    assert!(readable(&watch, WAIT));
    assert_eq!(test.group.oom_kills().unwrap(), 1);
    assert_eq!(test.group.pids().unwrap(), [bystander]);
    let memory = test.group.stats().unwrap().memory;
    assert_eq!((memory.oom_kills, memory.limit), (1, Some(33_554_432)));
    assert!(memory.failcnt > 0);
    // The watch of a group that is deleted wakes up too, so nobody waits on it for ever.
    rustix::io::read(&watch, &mut [0_u8; 8]).unwrap();
    test.group.kill_all(Signal::KILL, WAIT).unwrap();
    test.reap();
    test.group.delete(WAIT).unwrap();
    assert!(readable(&watch, WAIT));
    assert_eq!(test.group.oom_kills().unwrap_err().class(), ErrorClass::NotFound);
}

#[test]
fn stats_are_the_kernels_numbers() {
    let mut test = TestGroup::new("stats");
    test.apply(&limits(64 * MEBIBYTE, 64 * MEBIBYTE));
    test.spawn("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000");
    until("it slept", || test.group.stats().unwrap().cpu.user_ns > 0);
    test.group.freeze(WAIT).unwrap();
    let stats = test.group.stats().unwrap();
    let number = |controller, file| test.read(controller, file).parse::<u64>().unwrap();
    assert_eq!(stats.cpu.total_ns, number("cpuacct", "cpuacct.usage"));
    assert_eq!(stats.cpu.percpu_ns.iter().sum::<u64>(), stats.cpu.total_ns);
    assert_eq!(stats.memory.limit, Some(67_108_864));
    assert_eq!(stats.memory.swap_limit, Some(67_108_864));
    assert_eq!(stats.memory.usage, number("memory", "memory.usage_in_bytes"));
    assert_eq!(stats.memory.max_usage, number("memory", "memory.max_usage_in_bytes"));
    let stat = test.read("memory", "memory.stat");
    let expected: BTreeMap<_, u64> =
        stat.lines().map(|l| l.split_once(' ').unwrap()).map(|(k, v)| (k.to_owned(), v.parse().unwrap())).collect();
    assert_eq!(stats.memory.stat, expected);
    assert_eq!((stats.pids.current, stats.pids.limit, stats.pids.refused), (1, None, 0));
}

/// A parent that is there already, made by somebody else and without processors, does not stop us (v1 cpuset).
#[test]
fn cpusets_are_inherited_through_empty_parents() {
    let layout = Layout::detect().unwrap();
    let cpuset = layout.hierarchies.iter().find(|h| h.controllers.iter().any(|name| name == "cpuset")).unwrap();
    let name = format!("berth-test-{}-cpuset", std::process::id());
    let parent = cpuset.mount.join(&name);
    std::fs::create_dir(&parent).unwrap();
    std::fs::create_dir(parent.join("deep")).unwrap();
    let group = Cgroup::create(&layout, &format!("/{name}/deep/c")).unwrap();
    let root = std::fs::read_to_string(cpuset.mount.join("cpuset.cpus")).unwrap();
    let leaf = std::fs::read_to_string(parent.join("deep/c/cpuset.cpus")).unwrap();
    group.delete(WAIT).unwrap();
    Cgroup::open(&layout, &format!("/{name}")).unwrap().delete(WAIT).unwrap();
    assert_eq!(leaf, root);
    assert!(!parent.exists());
}
