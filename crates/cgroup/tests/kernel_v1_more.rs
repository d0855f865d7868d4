//! The controllers that Docker does not use, on v1. Those that are not mounted on this host are, in a mount namespace of the test's
//! own; needs root.

mod support;

use std::process::Command;

use berth_cgroup::{Controller, HugetlbLimit, Layout, PlanError, RdmaLimit, Resources, plan};
use berth_types::{Classify, ErrorClass};
use support::TestGroup;

/// Runs this test once more where net_cls, net_prio and perf_event are mounted. `true`: that is here.
fn is_inside(test: &str) -> bool {
    let layout = Layout::detect().expect("works");
    let wanted = [Controller::NetCls, Controller::NetPrio];
    let perf = layout.hierarchies.iter().any(|h| h.controllers.iter().any(|name| name == "perf_event"));
    if perf && wanted.into_iter().all(|controller| layout.has(controller)) {
        return true;
    }
    // A hierarchy outlives its last mount while a removed group of it lives on in the kernel: it is mounted and unmounted until it
    // is gone, so that the host has what it had.
    let place = tempfile::tempdir().expect("works");
    let script = "for c in net_cls net_prio perf_event; do mkdir $0/$c && mount -t cgroup -o $c none $0/$c || exit 99; done; \
                  \"$@\"; code=$?; umount $0/net_cls $0/net_prio $0/perf_event; \
                  for c in net_cls net_prio perf_event; do n=0; while grep -q :$c: /proc/self/cgroup; do n=$((n+1)); \
                  [ $n -lt 40 ] || exit 98; mount -t cgroup -o $c none $0/$c && umount $0/$c; m=0; \
                  while [ $m -lt 25 ] && grep -q :$c: /proc/self/cgroup; do m=$((m+1)); sleep 0.02; done; done; done; \
                  exit $code";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(place.path());
    let status = unshare.arg(std::env::current_exe().expect("works")).args(["--exact", test]).status().expect("works");
    assert!(status.success(), "{test} where the controllers are mounted: {status}");
    false
}

/// S-070, S-071, S-073: class, priorities, and a perf_event group of its own with the process in it.
#[test]
fn s070_s071_s073_network_and_perf_groups() {
    if !is_inside("s070_s071_s073_network_and_perf_groups") {
        return;
    }
    let mut test = TestGroup::new("more");
    let resources =
        Resources { net_cls_classid: Some(0x0010_0001), net_prio: vec![("lo".into(), 5)], ..Resources::default() };
    test.apply(&resources);
    assert_eq!(test.read("net_cls", "net_cls.classid"), 0x0010_0001.to_string());
    assert!(test.read("net_prio", "net_prio.ifpriomap").lines().any(|line| line == "lo 5"));
    test.apply(&Resources { net_cls_classid: Some(7), net_prio: vec![("lo".into(), 6)], ..Resources::default() });
    assert_eq!(test.read("net_cls", "net_cls.classid"), "7");
    let pid = test.spawn("exec sleep 1000");
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    for controller in ["net_cls", "net_prio", "perf_event"] {
        let line = format!(":{controller}:{}/c", test.parent);
        assert!(membership.lines().any(|own| own.ends_with(&line)), "{line} in {membership}");
        assert_eq!(test.read(controller, "cgroup.procs"), pid.as_raw_nonzero().to_string());
    }
    // What the kernel refuses is named with the file.
    let unknown = Resources { net_prio: vec![("nosuch0".into(), 1)], ..Resources::default() };
    let error = test.group.apply(&plan(&test.layout, &unknown).unwrap()).unwrap_err();
    assert!(error.to_string().contains("net_prio.ifpriomap"), "{error}");
}

/// S-070 to S-075: on a host without the controller the limit is refused by its name, with a way out.
#[test]
fn s070_s075_what_is_not_mounted_is_named() {
    let layout = Layout::detect().unwrap();
    let mut rdma = Resources::default();
    rdma.rdma.insert("mlx4_0".into(), RdmaLimit { hca_handles: Some(2), hca_objects: None });
    let mut misc = Resources::default();
    misc.unified.insert("misc.max".into(), "res 1".into());
    let cases = [
        (Resources { net_cls_classid: Some(1), ..Resources::default() }, Controller::NetCls, "net_cls.classid"),
        (Resources { net_prio: vec![("lo".into(), 1)], ..Resources::default() }, Controller::NetPrio, "net_prio"),
        (rdma, Controller::Rdma, "rdma"),
        (misc, Controller::Misc, "unified"),
    ];
    for (resources, controller, limit) in cases {
        if layout.has(controller) {
            assert!(plan(&layout, &resources).is_ok(), "{limit}");
            continue;
        }
        let error = plan(&layout, &resources).unwrap_err();
        assert_eq!(error.class(), ErrorClass::FailedPrecondition);
        assert!(matches!(&error, PlanError::NoController { .. } | PlanError::NotOnVersion { .. }), "{error}");
        assert!(error.to_string().starts_with(limit) && error.hint().unwrap().contains("unset"), "{error}");
    }
}

/// S-072: where the host has the controller (v1 or v2), limit and reservation limit are set, and measured.
#[test]
fn s072_huge_pages() {
    let layout = Layout::detect().unwrap();
    let limit = HugetlbLimit { page_size: "2MB".into(), limit_bytes: 4 << 20 };
    let resources = Resources { hugetlb: vec![limit], ..Resources::default() };
    if !layout.has(Controller::Hugetlb) {
        let error = plan(&layout, &resources).unwrap_err();
        assert!(error.to_string().starts_with("hugetlb needs the cgroup controller hugetlb"), "{error}");
        return;
    }
    let test = TestGroup::new("hugetlb");
    test.apply(&resources);
    let is_v1 = test.group.paths().contains_key("hugetlb");
    let suffix = if is_v1 { "limit_in_bytes" } else { "max" };
    for file in [format!("hugetlb.2MB.{suffix}"), format!("hugetlb.2MB.rsvd.{suffix}")] {
        assert_eq!(test.read("hugetlb", &file), "4194304", "{file}");
    }
    let stats = &test.group.stats().unwrap().hugetlb["2MB"];
    assert_eq!((stats.usage, stats.limit, stats.failcnt), (0, Some(4 << 20), 0));
    let unknown = HugetlbLimit { page_size: "3MB".into(), limit_bytes: 1 };
    let settings = plan(&layout, &Resources { hugetlb: vec![unknown], ..Resources::default() }).unwrap();
    let error = test.group.apply(&settings).unwrap_err();
    assert!(error.to_string().contains("hugetlb.3MB") && error.hint().unwrap().contains("huge pages"), "{error}");
}
