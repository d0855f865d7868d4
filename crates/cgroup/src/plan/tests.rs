use super::*;
use crate::layout::{Hierarchy, Unified, Version};
use crate::resources::*;
use berth_types::Classify;

fn v1() -> Layout {
    let names =
        ["cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma"];
    let hierarchy = |name: &&str| Hierarchy {
        mount: format!("/sys/fs/cgroup/{name}").into(),
        controllers: vec![(*name).to_owned()],
        own: "/".to_owned(),
    };
    Layout { version: Version::V1, hierarchies: names.iter().map(hierarchy).collect(), unified: None }
}

fn v2_with(controllers: &[&str]) -> Layout {
    let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
    let unified = Unified { mount: "/sys/fs/cgroup".into(), controllers, own: "/".to_owned() };
    Layout { version: Version::V2, hierarchies: Vec::new(), unified: Some(unified) }
}

fn v2() -> Layout {
    v2_with(&["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"])
}

/// Settings as `file=value`; an alternative file follows a bar.
fn lines(layout: &Layout, resources: &Resources) -> Vec<String> {
    fn line(setting: &Setting) -> String {
        let value = match &setting.value {
            Value::Text(text) => text.clone(),
            Value::AboveUsage(bytes) => format!("{bytes} if above usage"),
            Value::Devices(filter) => format!("{}", filter.exceptions.len()),
        };
        let end = match &setting.missing {
            Missing::Fail(_) => String::new(),
            Missing::Skip => " (or skip)".to_owned(),
            Missing::Instead(other) => format!(" | {}", line(other)),
        };
        format!("{}={value}{end}", setting.file)
    }
    plan(layout, resources).unwrap().iter().map(line).collect()
}

fn check(resources: &Resources, on_v1: &[&str], on_v2: &[&str]) {
    assert_eq!(lines(&v1(), resources), on_v1, "v1");
    assert_eq!(lines(&v2(), resources), on_v2, "v2");
}

fn refusal(layout: &Layout, resources: &Resources) -> (berth_types::ErrorClass, String, String) {
    let error = plan(layout, resources).unwrap_err();
    (error.class(), error.to_string(), error.hint().unwrap_or_default())
}

fn memory(limit: i64, swap: Option<i64>) -> Resources {
    Resources { memory: Memory { limit: Some(limit), swap, ..Memory::default() }, ..Resources::default() }
}

#[test]
fn nothing_asked_nothing_set() {
    check(&Resources::default(), &[], &[]);
    let zeros = Resources {
        cpu: Cpu { shares: Some(0), quota_us: Some(0), period_us: Some(0), ..Cpu::default() },
        memory: Memory { limit: Some(0), swap: Some(0), reservation: Some(0), ..Memory::default() },
        block_io: BlockIo { weight: Some(0), ..BlockIo::default() },
        ..Resources::default()
    };
    check(&zeros, &[], &[]);
}

/// S-043, S-051
#[test]
fn s043_s051_cpu() {
    let cpu = Cpu {
        shares: Some(512),
        quota_us: Some(50_000),
        period_us: Some(100_000),
        burst_us: Some(1000),
        idle: Some(0),
        cpus: "0-1".into(),
        mems: "0".into(),
        ..Cpu::default()
    };
    check(
        &Resources { cpu, ..Resources::default() },
        &[
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpu.idle=0",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ],
        &[
            "cpu.weight=59",
            "cpu.max=50000 100000",
            "cpu.max.burst=1000",
            "cpu.idle=0",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ],
    );
    let quota =
        |quota_us, period_us| Resources { cpu: Cpu { quota_us, period_us, ..Cpu::default() }, ..Resources::default() };
    check(&quota(Some(-1), None), &["cpu.cfs_quota_us=-1"], &["cpu.max=max"]);
    check(&quota(None, Some(20_000)), &["cpu.cfs_period_us=20000"], &["cpu.max=max 20000"]);
    check(&quota(Some(5000), None), &["cpu.cfs_quota_us=5000"], &["cpu.max=5000"]);
    assert_eq!(
        refusal(&v2(), &quota(Some(999), None)).1,
        "cpu.quota: 999 is not allowed, the kernel takes no quota below 1000 microseconds"
    );
}

#[test]
fn weights_go_through_the_anchor_points() {
    for (shares, weight) in [
        (1, 1),
        (2, 1),
        (3, 2),
        (102, 17),
        (256, 35),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (10_240, 639),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        assert_eq!(cpu::weight(shares), weight, "{shares}");
    }
    assert!((2..262_144).all(|shares| cpu::weight(shares) <= cpu::weight(shares + 1)));
    for (weight, unified) in [(10, 1), (100, 910), (500, 4950), (1000, 10_000)] {
        assert_eq!(block_io::unified_weight(weight), unified);
    }
}

/// S-042
#[test]
fn s042_memory() {
    check(&memory(67_108_864, None), &["memory.limit_in_bytes=67108864"], &["memory.max=67108864"]);
    check(
        &memory(64, Some(128)),
        &["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=128"],
        &["memory.swap.max=64", "memory.max=64"],
    );
    check(
        &memory(64, Some(64)),
        &["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=64"],
        &["memory.swap.max=0", "memory.max=64"],
    );
    check(
        &memory(64, Some(-1)),
        &["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=-1"],
        &["memory.swap.max=max", "memory.max=64"],
    );
    check(
        &memory(-1, None),
        &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1 (or skip)"],
        &["memory.swap.max=max (or skip)", "memory.max=max"],
    );
    let more = Memory { limit: Some(64), reservation: Some(32), check_before_update: true, ..Memory::default() };
    check(
        &Resources { memory: more, ..Resources::default() },
        &["memory.limit_in_bytes=64", "memory.soft_limit_in_bytes=32"],
        &["memory.max=64 if above usage", "memory.low=32"],
    );
}

#[test]
fn memory_that_cannot_be_is_refused_with_the_reason() {
    use berth_types::ErrorClass::{FailedPrecondition, InvalidArgument};
    for layout in [v1(), v2()] {
        let (class, text, _) = refusal(&layout, &memory(64, Some(32)));
        assert_eq!(class, InvalidArgument);
        assert_eq!(
            text,
            "memory.swap: 32 is not allowed, it counts memory plus swap, so it cannot be below memory.limit (64)"
        );
        let wild = Memory { swappiness: Some(101), ..Memory::default() };
        assert_eq!(refusal(&layout, &Resources { memory: wild, ..Resources::default() }).0, InvalidArgument);
    }
    // v1 counts both together and has the limit of an update already; v2 counts swap alone and must be told the other.
    let swap_alone = Resources { memory: Memory { swap: Some(1), ..Memory::default() }, ..Resources::default() };
    assert_eq!(lines(&v1(), &swap_alone), ["memory.memsw.limit_in_bytes=1"]);
    assert_eq!(refusal(&v2(), &swap_alone).0, InvalidArgument);
    let old = Memory { swappiness: Some(0), disable_oom_killer: true, ..Memory::default() };
    let old = Resources { memory: old, ..Resources::default() };
    assert_eq!(lines(&v1(), &old), ["memory.swappiness=0", "memory.oom_control=1"]);
    let (class, text, hint) = refusal(&v2(), &old);
    assert_eq!(class, FailedPrecondition);
    assert_eq!(text, "memory.disable_oom_killer cannot be enforced on cgroup v2: there is no file for it");
    assert_eq!(hint, "set memory.high through unified to throttle instead of killing");
}

/// S-057, S-058
#[test]
fn s057_s058_block_io() {
    let device = |rate| vec![ThrottleDevice { major: 8, minor: 16, rate }];
    let block_io = BlockIo {
        weight: Some(100),
        weight_devices: vec![WeightDevice { major: 8, minor: 0, weight: Some(500), leaf_weight: None }],
        read_bps: device(1_048_576),
        write_bps: device(2_097_152),
        read_iops: device(0),
        write_iops: device(100),
        ..BlockIo::default()
    };
    check(
        &Resources { block_io, ..Resources::default() },
        &[
            "blkio.bfq.weight=100 | blkio.weight=100",
            "blkio.bfq.weight_device=8:0 500 | blkio.weight_device=8:0 500",
            "blkio.throttle.read_bps_device=8:16 1048576",
            "blkio.throttle.write_bps_device=8:16 2097152",
            "blkio.throttle.read_iops_device=8:16 0",
            "blkio.throttle.write_iops_device=8:16 100",
        ],
        &[
            "io.bfq.weight=100 | io.weight=910",
            "io.bfq.weight=8:0 500 | io.weight=8:0 4950",
            "io.max=8:16 rbps=1048576",
            "io.max=8:16 wbps=2097152",
            "io.max=8:16 riops=max",
            "io.max=8:16 wiops=100",
        ],
    );
    let leaf = BlockIo { leaf_weight: Some(10), ..BlockIo::default() };
    let leaf = Resources { block_io: leaf, ..Resources::default() };
    assert_eq!(lines(&v1(), &leaf), ["blkio.leaf_weight=10"]);
    assert_eq!(refusal(&v2(), &leaf).0, berth_types::ErrorClass::FailedPrecondition);
    let light = BlockIo { weight: Some(9), ..BlockIo::default() };
    assert_eq!(
        refusal(&v1(), &Resources { block_io: light, ..Resources::default() }).1,
        "block_io.weight: 9 is not allowed, it goes from 10 to 1000"
    );
}

/// S-060, S-053, S-070 to S-076
#[test]
fn s060_s053_s070_the_others() {
    let resources = Resources {
        pids_limit: Some(20),
        devices: DeviceRule::container_defaults().to_vec(),
        hugetlb: vec![HugetlbLimit { page_size: "2MB".into(), limit_bytes: 4_194_304 }],
        rdma: [("mlx5_0".to_owned(), RdmaLimit { hca_handles: Some(3), hca_objects: None })].into(),
        ..Resources::default()
    };
    check(
        &resources,
        &[
            "pids.max=20",
            "devices.list=10",
            "hugetlb.2MB.limit_in_bytes=4194304",
            "hugetlb.2MB.rsvd.limit_in_bytes=4194304 (or skip)",
            "rdma.max=mlx5_0 hca_handle=3 hca_object=max",
        ],
        &[
            "pids.max=20",
            "devices.list=10",
            "hugetlb.2MB.max=4194304",
            "hugetlb.2MB.rsvd.max=4194304 (or skip)",
            "rdma.max=mlx5_0 hca_handle=3 hca_object=max",
        ],
    );
    let net =
        Resources { net_cls_classid: Some(1_048_577), net_prio: vec![("eth0".into(), 5)], ..Resources::default() };
    assert_eq!(lines(&v1(), &net), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
    let (_, text, hint) = refusal(&v2(), &net);
    assert_eq!(text, "net_cls.classid cannot be enforced on cgroup v2: there is no file for it");
    assert_eq!(hint, "match the container's cgroup in nftables (socket cgroupv2) instead");
    let pids = |limit| Resources { pids_limit: Some(limit), ..Resources::default() };
    check(&pids(-1), &["pids.max=max"], &["pids.max=max"]);
    assert_eq!(lines(&v2_with(&[]), &pids(-1)), Vec::<String>::new());
    check(&pids(0), &["pids.max=1"], &["pids.max=1"]);
}

/// S-076
#[test]
fn s076_unified_is_verbatim_and_names_what_is_missing() {
    let unified =
        |file: &str| Resources { unified: [(file.to_owned(), "1 2".to_owned())].into(), ..Resources::default() };
    assert_eq!(lines(&v2(), &unified("memory.high")), ["memory.high=1 2"]);
    assert_eq!(lines(&v2(), &unified("misc.max")), ["misc.max=1 2"]);
    assert_eq!(lines(&v2(), &unified("cgroup.max.depth")), ["cgroup.max.depth=1 2"]);
    let (class, text, hint) = refusal(&v2_with(&["cpu"]), &unified("memory.high"));
    assert_eq!(class, berth_types::ErrorClass::FailedPrecondition);
    assert_eq!(text, "unified needs the cgroup controller memory, which this host does not have");
    assert!(hint.contains("+memory"), "{hint}");
    for file in ["../x.y", "memory", "nonsense.max", "memory.a/b", "cgroup.procs", ""] {
        assert_eq!(refusal(&v2(), &unified(file)).0, berth_types::ErrorClass::InvalidArgument, "{file}");
    }
    assert_eq!(refusal(&v1(), &unified("memory.high")).0, berth_types::ErrorClass::FailedPrecondition);
}

#[test]
fn a_missing_controller_is_named_with_a_way_out() {
    let layout = Layout { version: Version::V1, hierarchies: vec![v1().hierarchies.swap_remove(0)], unified: None };
    let (class, text, hint) = refusal(&layout, &memory(64, None));
    assert_eq!(class, berth_types::ErrorClass::FailedPrecondition);
    assert_eq!(text, "memory.limit needs the cgroup controller memory, which this host does not have");
    assert_eq!(hint, "mount the v1 hierarchy (memory) below /sys/fs/cgroup, or leave memory.limit unset");
}

#[test]
fn settings_print_for_people() {
    let plan = plan(&v1(), &Resources { devices: DeviceRule::container_defaults()[..4].to_vec(), ..memory(64, None) });
    let lines: Vec<_> = plan.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["memory.limit: memory.limit_in_bytes = 64", "devices: deny all, but c *:* m, but b *:* m, but c 1:3 rwm"]
    );
}

use crate::device::DeviceRule;
