use super::manager::label;
use super::property::{Host, split};
use super::unit_name::{control_group_of, is_reference, reference};
use super::*;
use crate::dbus::Value;
use crate::device::{Access, DeviceKind, DeviceRule};
use crate::error::CgroupError;
use crate::layout::{Hierarchy, Layout, Unified, Version};
use crate::plan::{Setting, plan};
use crate::resources::*;

const DRIVERS: &str = "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n  5 /dev/tty\n  5 ttyS\n136 pts\n\nBlock devices:\n  8 sd\n 65 sd\n254 virtblk\n";

fn v1() -> Layout {
    let names = [
        "cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma",
        "misc",
    ];
    let hierarchy = |name: &&str| Hierarchy {
        mount: format!("/sys/fs/cgroup/{name}").into(),
        controllers: vec![(*name).to_owned()],
        own: "/".to_owned(),
    };
    Layout { version: Version::V1, hierarchies: names.iter().map(hierarchy).collect(), unified: None }
}

fn v2() -> Layout {
    let controllers = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"].map(str::to_owned).to_vec();
    let unified = Unified { mount: "/sys/fs/cgroup".into(), controllers, own: "/".to_owned() };
    Layout { version: Version::V2, hierarchies: Vec::new(), unified: Some(unified) }
}

fn host(is_v2: bool, version: u32) -> Host<'static> {
    let block_node = &|major, minor| (major == 8).then(|| format!("/dev/sd{minor}"));
    Host { version, is_v2, period_us: 50_000, block_node, drivers: DRIVERS }
}

/// Properties as `name=value`, then what is left as `file=value`.
fn lines(layout: &Layout, version: u32, resources: &Resources) -> Vec<String> {
    let settings = plan(layout, resources).unwrap();
    let split = split(&settings, &host(layout.version == Version::V2, version)).unwrap();
    let shown = |value: &Value| match value {
        Value::U64(u64::MAX) => "infinity".to_owned(),
        Value::U64(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let properties = split.properties.iter().map(|(name, value)| format!("{name}={}", shown(value)));
    properties.chain(split.direct.iter().map(|setting| setting.to_string())).collect()
}

fn everything() -> Resources {
    let rate = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
    Resources {
        cpu: Cpu {
            shares: Some(512),
            quota_us: Some(50_000),
            period_us: Some(100_000),
            burst_us: Some(1000),
            cpus: "0-1,9".into(),
            mems: "0".into(),
            ..Cpu::default()
        },
        memory: Memory {
            limit: Some(64 << 20),
            reservation: Some(32 << 20),
            swap: Some(96 << 20),
            ..Memory::default()
        },
        pids_limit: Some(20),
        block_io: BlockIo {
            weight: Some(500),
            weight_devices: vec![WeightDevice { major: 8, minor: 0, weight: Some(100), leaf_weight: None }],
            read_bps: rate(1),
            write_bps: rate(2),
            read_iops: rate(3),
            write_iops: rate(0),
            ..BlockIo::default()
        },
        hugetlb: vec![HugetlbLimit { page_size: "2MB".into(), limit_bytes: 4 << 20 }],
        ..Resources::default()
    }
}

/// S-044, S-045: on v2 every limit with a property goes by it, and only the rest is written.
#[test]
fn s045_v2_settings_become_properties() {
    assert_eq!(
        lines(&v2(), 257, &everything()),
        [
            "CPUWeight=59",
            "AllowedCPUs=Bytes([3, 2])",
            "AllowedMemoryNodes=Bytes([1])",
            "MemorySwapMax=33554432",
            "MemoryMax=67108864",
            "MemoryLow=33554432",
            "TasksMax=20",
            "IOWeight=4950",
            "IODeviceWeight=NumberPairs([(\"/dev/sd0\", 910)])",
            "IOReadBandwidthMax=NumberPairs([(\"/dev/sd0\", 1)])",
            "IOWriteBandwidthMax=NumberPairs([(\"/dev/sd0\", 2)])",
            "IOReadIOPSMax=NumberPairs([(\"/dev/sd0\", 3)])",
            "IOWriteIOPSMax=NumberPairs([(\"/dev/sd0\", 18446744073709551615)])",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
            "cpu.burst: cpu.max.burst = 1000",
            "hugetlb: hugetlb.2MB.max = 4194304",
            "hugetlb: hugetlb.2MB.rsvd.max = 4194304",
        ]
    );
}

#[test]
fn s045_v1_settings_become_the_old_properties() {
    assert_eq!(
        lines(&v1(), 247, &everything()),
        [
            "CPUShares=512",
            "MemoryLimit=67108864",
            "TasksMax=20",
            "BlockIOWeight=500",
            "BlockIODeviceWeight=NumberPairs([(\"/dev/sd0\", 100)])",
            "BlockIOReadBandwidth=NumberPairs([(\"/dev/sd0\", 1)])",
            "BlockIOWriteBandwidth=NumberPairs([(\"/dev/sd0\", 2)])",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
            "cpu.burst: cpu.cfs_burst_us = 1000",
            "cpu.cpus: cpuset.cpus = 0-1,9",
            "cpu.mems: cpuset.mems = 0",
            "memory.swap: memory.memsw.limit_in_bytes = 100663296",
            "memory.reservation: memory.soft_limit_in_bytes = 33554432",
            "block_io.read_iops: blkio.throttle.read_iops_device = 8:0 3",
            "block_io.write_iops: blkio.throttle.write_iops_device = 8:0 0",
            "hugetlb: hugetlb.2MB.limit_in_bytes = 4194304",
            "hugetlb: hugetlb.2MB.rsvd.limit_in_bytes = 4194304",
        ]
    );
}

/// What this systemd does not have yet is left to us, as it does not write it either.
#[test]
fn an_old_systemd_leaves_more_to_us() {
    let resources = Resources { cpu: Cpu { cpus: "0".into(), ..Cpu::default() }, ..Resources::default() };
    assert_eq!(lines(&v2(), 243, &resources), ["cpu.cpus: cpuset.cpus = 0"]);
    assert_eq!(lines(&v2(), 244, &resources), ["AllowedCPUs=Bytes([1])"]);
}

#[test]
fn quotas_are_rounded_up_to_whole_per_cents_of_a_second() {
    let quota = |quota_us, period_us| {
        let cpu = Cpu { quota_us, period_us, ..Cpu::default() };
        lines(&v2(), 257, &Resources { cpu, ..Resources::default() })
    };
    assert_eq!(quota(Some(12_345), Some(100_000)), ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=130000"]);
    assert_eq!(quota(Some(-1), None), ["CPUQuotaPerSecUSec=infinity"]);
    // The period in force is 50 ms.
    assert_eq!(quota(Some(25_000), None), ["CPUQuotaPerSecUSec=500000"]);
    assert_eq!(quota(None, Some(20_000)), ["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=infinity"]);
}

#[test]
fn unified_files_are_properties_too_where_systemd_has_them() {
    let files = [
        ("cpu.weight", "77"),
        ("cpu.idle", "1"),
        ("memory.high", "max"),
        ("memory.min", "4096"),
        ("io.weight", "default 50"),
        ("io.latency", "8:1 target=75"),
        ("misc.max", "sev 3"),
        ("memory.oom.group", "1"),
    ];
    let unified = files.into_iter().map(|(file, value)| (file.to_owned(), value.to_owned())).collect();
    assert_eq!(
        lines(&v2(), 257, &Resources { unified, ..Resources::default() }),
        [
            "CPUWeight=77",
            "IODeviceLatencyTargetUSec=NumberPairs([(\"/dev/sd1\", 75)])",
            "IOWeight=50",
            "MemoryHigh=infinity",
            "MemoryMin=4096",
            "unified: memory.oom.group = 1",
            "unified: misc.max = sev 3",
        ]
    );
}

#[test]
fn devices_are_told_by_number_and_driver() {
    let devices = |rules: &[DeviceRule], is_v2| {
        let layout = if is_v2 { v2() } else { v1() };
        let resources = Resources { devices: rules.to_vec(), ..Resources::default() };
        let settings: Vec<Setting> = plan(&layout, &resources).unwrap();
        split(&settings, &host(is_v2, 257)).map(|split| (split.properties, split.direct.len()))
    };
    let (properties, direct) = devices(&DeviceRule::container_defaults(), true).unwrap();
    assert_eq!((direct, properties.len()), (0, 3));
    assert_eq!(properties[0], ("DevicePolicy", Value::Text("strict".into())));
    assert_eq!(properties[1], ("DeviceAllow", Value::TextPairs(Vec::new())));
    let Value::TextPairs(allowed) = &properties[2].1 else { panic!("{properties:?}") };
    let expected = [("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm")];
    assert_eq!(allowed[..3], expected.map(|(node, access)| (node.to_owned(), access.to_owned())));
    assert_eq!(allowed.last().unwrap(), &("char-pts".to_owned(), "rwm".to_owned()));
    // Privileged.
    let (properties, _) = devices(&[DeviceRule::ALLOW_ALL], false).unwrap();
    assert_eq!(properties[0], ("DevicePolicy", Value::Text("auto".into())));
    // What has no driver of its own, or is a denial, is our program on v2, and cannot be on v1.
    let odd = DeviceRule { allow: true, kind: DeviceKind::Block, major: Some(8), minor: None, access: Access::ALL };
    let denial =
        DeviceRule { allow: false, kind: DeviceKind::Char, major: Some(1), minor: Some(1), access: Access::ALL };
    for rules in [vec![odd], vec![DeviceRule::ALLOW_ALL, denial]] {
        let (properties, direct) = devices(&rules, true).unwrap();
        assert_eq!((direct, &properties[0].1), (1, &Value::Text("auto".into())));
        assert!(devices(&rules, false).unwrap_err().to_string().contains("systemd"));
    }
}

#[test]
fn scopes_are_named_and_placed_as_runc_does() {
    let name = |path: &str| UnitName::parse(path, &Instance::System).unwrap();
    let parsed = name("machine.slice:berth:abc");
    assert_eq!((parsed.slice(), parsed.scope()), ("machine.slice", "berth-abc.scope"));
    assert_eq!(parsed.control_group(), "/machine.slice/berth-abc.scope");
    assert_eq!(name("::x").control_group(), "/system.slice/x.scope");
    assert_eq!(name("-:p:x").control_group(), "/p-x.scope");
    assert_eq!(name("a-b-c.slice:p:x").control_group(), "/a.slice/a-b.slice/a-b-c.slice/p-x.scope");
    assert_eq!(name(":cri:a+b/..").scope(), "cri-a\\x2bb\\x2f...scope");
    let user = Instance::User { runtime_dir: "/run/user/7".into() };
    assert_eq!(UnitName::parse(":p:x", &user).unwrap().slice(), "user.slice");
    for bad in
        ["/a/b", "a:b", "a:b:c", "a.slice:b:", "a/b.slice:c:d", "a--b.slice:c:d", "x.slice:p:y.slice", ".slice:a:b"]
    {
        assert!(matches!(UnitName::parse(bad, &Instance::System), Err(CgroupError::BadPath { .. })), "{bad}");
    }
}

#[test]
fn references_lead_back_to_the_scope_and_its_manager() {
    assert!(is_reference("a.slice:b:c") && is_reference("systemd:/a.slice/b.scope"));
    assert!(!is_reference("/berth/x") && !is_reference("berth/x") && !is_reference("/a:b:c"));
    assert_eq!(control_group_of("a.slice:b:c").unwrap(), "/a.slice/b-c.scope");
    assert_eq!(control_group_of(&reference("/x/y.scope")).unwrap(), "/x/y.scope");
    let path = "/user.slice/user-1000.slice/user@1000.service/user.slice/p-x.scope";
    let unit = Unit::of_control_group(path);
    assert_eq!(unit.name, "p-x.scope");
    assert_eq!(unit.instance, Instance::User { runtime_dir: "/run/user/1000".into() });
    assert_eq!(Instance::of_control_group("/user@x.service/a.scope"), Instance::System);
    assert_eq!(label("berth-1a.scope"), "berth_2d1a_2escope");
    assert_eq!(label("1x"), "_31x");
}

#[test]
fn s052_the_kernels_log_names_the_victims_group() {
    let record = "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/s/a.scope,task_memcg=/s/a.scope,task=dd,pid=7,uid=0\n";
    assert!(super::kernel_log::names(record, "/s/a.scope"));
    assert!(super::kernel_log::names(
        &record.replace("task_memcg=/s/a.scope", "task_memcg=/s/a.scope/in"),
        "/s/a.scope"
    ));
    assert!(!super::kernel_log::names(record, "/s/a") && !super::kernel_log::names(record, "/s/a.scop"));
    assert!(!super::kernel_log::names("6,1,2,-;Memory cgroup out of memory: Killed process 7 (dd)", "/s/a.scope"));
}

/// S-046: a path of the other driver is refused by name, in both directions.
#[test]
fn s046_the_drivers_do_not_mix() {
    let error = crate::Cgroup::create(&v2(), "system.slice:berth:x").unwrap_err();
    assert!(error.to_string().contains("systemd driver's form, but the cgroupfs driver was asked"), "{error}");
    let error = UnitName::parse("/berth/x", &Instance::System).unwrap_err();
    assert!(error.to_string().ends_with("the systemd driver wants slice:prefix:name"), "{error}");
}

/// Every file the plan can name is in the table under its limit, and the other way round.
#[test]
fn the_table_knows_every_file_of_the_plan() {
    let mut v1_all = everything();
    v1_all.cpu.realtime_period_us = Some(1);
    v1_all.cpu.realtime_runtime_us = Some(1);
    v1_all.cpu.idle = Some(1);
    v1_all.memory.swappiness = Some(1);
    v1_all.memory.disable_oom_killer = true;
    v1_all.block_io.leaf_weight = Some(10);
    v1_all.devices = vec![DeviceRule::DENY_ALL];
    v1_all.net_cls_classid = Some(1);
    v1_all.net_prio = vec![("lo".into(), 1)];
    v1_all.rdma.insert("mlx".into(), RdmaLimit::default());
    let mut v2_all = everything();
    v2_all.cpu.idle = Some(1);
    v2_all.devices = vec![DeviceRule::DENY_ALL];
    v2_all.rdma = v1_all.rdma.clone();
    let unified = ["memory.high", "memory.min", "memory.zswap.max", "io.weight", "io.latency", "misc.max"];
    v2_all.unified = unified.into_iter().map(|file| (file.to_owned(), String::new())).collect();
    let known = |place: fn(&Knob) -> Option<Place>| -> std::collections::BTreeSet<(String, String)> {
        KNOBS.iter().filter_map(|knob| Some((knob.limit.to_owned(), place(knob)?.file.to_owned()))).collect()
    };
    let planned = |layout: &Layout, resources: &Resources| -> std::collections::BTreeSet<(String, String)> {
        let settings = plan(layout, resources).unwrap();
        let plain = |setting: &Setting| (setting.limit.to_owned(), setting.file.replace("2MB", "<size>"));
        settings.iter().map(plain).filter(|(_, file)| !file.contains(".rsvd.")).collect()
    };
    assert_eq!(planned(&v1(), &v1_all), known(|knob| knob.v1));
    let mut on_v2 = known(|knob| knob.v2);
    // One file for both, named after the quota when there is one.
    assert!(on_v2.remove(&("cpu.period".to_owned(), "cpu.max".to_owned())));
    assert_eq!(planned(&v2(), &v2_all), on_v2);
}
