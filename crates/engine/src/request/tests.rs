use std::collections::BTreeMap;

use berth_types::ErrorClass;

use super::mounts::{MountKind, ReadOnly};
use super::namespaces::{IdRange, NetworkMode, NsMode, UserNsMode};
use super::*;
use crate::config::{MountRequest, PortBinding, Resources, Ulimit};
use crate::host::tests::facts;

fn parse(host: HostConfig) -> Result<Request> {
    Request::parse(&ContainerConfig::default(), &host, &facts())
}

fn refused(host: HostConfig) -> EngineError {
    parse(host).expect_err("must be refused")
}

fn limits(change: impl FnOnce(&mut Resources)) -> HostConfig {
    let mut host = HostConfig::default();
    change(&mut host.resources);
    host
}

#[test]
fn defaults_are_dockers() {
    let request = parse(HostConfig::default()).unwrap();
    assert_eq!(request.namespaces.network, NetworkMode::Bridge);
    assert_eq!(request.namespaces.cgroup, NsMode::Private);
    assert_eq!(request.namespaces.user, UserNsMode::Host);
    assert_eq!(request.security.capabilities.len(), 14);
    assert_eq!(request.security.seccomp, security::SeccompMode::Default);
    assert!(request.warnings.is_empty() && request.mounts.is_empty() && request.ports.is_empty());
    let v1 = HostFacts { cgroup_version: 1, ..facts() };
    let request = Request::parse(&ContainerConfig::default(), &HostConfig::default(), &v1).unwrap();
    assert_eq!(request.namespaces.cgroup, NsMode::Host, "Docker's default on cgroup v1");
}

#[test]
fn limits_out_of_range_are_refused_with_the_reason() {
    let cases: Vec<(HostConfig, &str)> = vec![
        (limits(|r| r.memory = Some(1 << 20)), "Minimum memory limit allowed is 6MB"),
        (limits(|r| r.memory = Some(-5)), "memory limit must not be negative"),
        (
            limits(|r| (r.memory, r.memory_swap) = (Some(64 << 20), Some(32 << 20))),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            limits(|r| r.memory_swap = Some(64 << 20)),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (limits(|r| r.memory_swappiness = Some(101)), "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            limits(|r| r.nano_cpus = Some(5_000_000_000)),
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (
            limits(|r| r.cpuset_cpus = "0-9".into()),
            "Requested CPUs are not available - requested 0-9, available: 0-3 (CPU 4 is not there)",
        ),
        (limits(|r| r.cpuset_cpus = "x".into()), "Invalid value x for cpuset-cpus: expected a list such as 0-2,4"),
        (
            limits(|r| r.cpuset_mems = "1".into()),
            "Requested memory nodes are not available - requested 1, available: 0 (memory node 1 is not there)",
        ),
        (
            limits(|r| r.cpu_period_us = Some(5)),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (limits(|r| r.blkio_weight = Some(5)), "Range of blkio weight is from 10 to 1000"),
        (limits(|r| r.pids_limit = Some(-2)), "pids limit must be -1 (unlimited), 0 or more"),
    ];
    for (host, message) in cases {
        let error = refused(host);
        assert_eq!((error.class, error.message.as_str()), (ErrorClass::InvalidArgument, message));
    }
}

/// S-059: on v1 the caveat of rate limits is told.
#[test]
fn s059_buffered_writes_warning_on_v1() {
    let host = limits(|r| r.device_write_bps = vec![("/dev/sda".into(), 1 << 20)]);
    let v1 = HostFacts { cgroup_version: 1, ..facts() };
    let request = Request::parse(&ContainerConfig::default(), &host, &v1).unwrap();
    assert_eq!(request.warnings.len(), 1);
    assert!(request.warnings[0].contains("buffered writes are not throttled"));
    assert!(parse(host).unwrap().warnings.is_empty());
}

#[test]
fn capability_rules() {
    let caps = |add: &[&str], drop: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        parse(HostConfig { cap_add: owned(add), cap_drop: owned(drop), ..HostConfig::default() })
            .map(|r| r.security.capabilities)
    };
    assert_eq!(caps(&["net_admin"], &["ALL"]).unwrap(), ["NET_ADMIN"]);
    assert_eq!(caps(&["CAP_CHOWN"], &["all"]).unwrap(), ["CHOWN"]);
    assert_eq!(caps(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), 40);
    assert!(!caps(&[], &["MKNOD"]).unwrap().contains(&"MKNOD"));
    assert_eq!(caps(&["FLY"], &[]).unwrap_err().message, "invalid capability: \"FLY\"");
    let poor = HostFacts { capabilities: 1, ..facts() };
    let asked = HostConfig { cap_add: vec!["SYS_ADMIN".into()], ..HostConfig::default() };
    let request = Request::parse(&ContainerConfig::default(), &asked, &poor).unwrap();
    assert_eq!(request.security.capabilities, ["CHOWN"]);
    assert_eq!(request.warnings, ["capability SYS_ADMIN is not available on this host and is left out"]);
}

#[test]
fn binds() {
    let bind = |text: &str| parse(HostConfig { binds: vec![text.into()], ..HostConfig::default() });
    let mounts = bind("/srv/x:/x:ro").unwrap().mounts;
    assert_eq!(mounts[0].read_only, ReadOnly::Recursive);
    assert!(matches!(&mounts[0].kind, MountKind::Bind { creates_source: true, is_recursive: true, .. }));
    let volume = |text: &str| match bind(text).unwrap().mounts.remove(0).kind {
        MountKind::Volume(volume) => (volume.name, volume.copies),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(volume("data:/x"), (Some("data".to_owned()), true));
    assert_eq!(volume("data:/x:ro,nocopy"), (Some("data".to_owned()), false));
    assert_eq!(volume("/x"), (None, true), "an anonymous one");
    for bad in [
        "/a:b",
        "/a:/b:rx",
        "/a:/b:ro:x",
        "/a:/",
        "/a:/b/../..",
        "/a/../b:/c",
        ":/b",
        "/a:/proc/sys",
        "/a:/sys/fs/cgroup",
    ] {
        assert!(bind(bad).is_err(), "{bad}");
    }
    // A VOLUME of the image gives way to a mount of the same place, however it is written.
    let image = ContainerConfig { volumes: vec!["/x/".into(), "/y".into()], ..ContainerConfig::default() };
    let host = HostConfig { binds: vec!["/a:/x".into()], ..HostConfig::default() };
    let mounts = Request::parse(&image, &host, &facts()).unwrap().mounts;
    assert_eq!(mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume(_))).count(), 1);
    let climbing = ContainerConfig { volumes: vec!["/../../etc".into()], ..ContainerConfig::default() };
    assert!(Request::parse(&climbing, &HostConfig::default(), &facts()).is_err(), "CVE-2022-23648");
    let twice = HostConfig { binds: vec!["/a:/x".into(), "/b:/x/".into()], ..HostConfig::default() };
    assert_eq!(refused(twice).message, "Duplicate mount point: /x");
    let order = HostConfig { binds: vec!["/a:/x/y/z".into(), "/b:/x".into()], ..HostConfig::default() };
    let targets: Vec<_> = parse(order).unwrap().mounts.into_iter().map(|m| m.target).collect();
    assert_eq!(targets, [std::path::PathBuf::from("/x"), "/x/y/z".into()], "parents before children");
}

#[test]
fn mounts_and_tmpfs() {
    let mount = |kind: &str, source: &str, target: &str| MountRequest {
        kind: kind.into(),
        source: source.into(),
        target: target.into(),
        ..MountRequest::default()
    };
    let parse_one = |m: MountRequest| parse(HostConfig { mounts: vec![m], ..HostConfig::default() });
    let plan = parse_one(mount("bind", "/a", "/b")).unwrap().mounts.remove(0);
    assert!(matches!(plan.kind, MountKind::Bind { creates_source: false, .. }), "--mount refuses a missing source");
    assert!(matches!(parse_one(mount("volume", "vv", "/b")).unwrap().mounts[0].kind, MountKind::Volume(_)));
    let away = MountRequest { volume_subpath: "../x".into(), ..mount("volume", "vv", "/b") };
    assert!(parse_one(away).unwrap_err().message.contains("subpath"));
    assert!(parse_one(mount("tmpfs", "/a", "/b")).is_err());
    assert!(parse_one(mount("bind", "a", "/b")).is_err());
    let sized = MountRequest { tmpfs_size_bytes: Some(1 << 20), tmpfs_mode: Some(0o1770), ..mount("tmpfs", "", "/t") };
    let plan = parse_one(sized).unwrap().mounts.remove(0);
    assert_eq!(
        plan.kind,
        MountKind::Tmpfs {
            options: ["noexec", "nosuid", "nodev", "size=1048576", "mode=1770"].map(str::to_owned).to_vec()
        }
    );
    let tmpfs = |options: &str| {
        parse(HostConfig { tmpfs: BTreeMap::from([("/t".into(), options.into())]), ..HostConfig::default() })
    };
    let plan = tmpfs("exec,size=64m").unwrap().mounts.remove(0);
    assert_eq!(plan.kind, MountKind::Tmpfs { options: ["nosuid", "nodev", "size=64m"].map(str::to_owned).to_vec() });
    assert!(tmpfs("size").is_err() && tmpfs("source=/x").is_err());
}

#[test]
fn one_host_port_for_two_ports_is_refused() {
    let binding = |port: &str| vec![PortBinding { host_ip: String::new(), host_port: port.into() }];
    let host = |a: &str, b: &str| HostConfig {
        port_bindings: BTreeMap::from([("80/tcp".into(), binding(a)), ("81/tcp".into(), binding(b))]),
        ..HostConfig::default()
    };
    let message = refused(host("8080", "8080")).message;
    assert_eq!(message, "host port 8080 is to be published twice, for container ports 80 and 81");
    parse(host("8080-8081", "8080-8081")).unwrap();
    parse(host("", "")).unwrap();
}

#[test]
fn ports() {
    let publish = |port: &str, host_ip: &str, host_port: &str| {
        let binding = PortBinding { host_ip: host_ip.into(), host_port: host_port.into() };
        parse(HostConfig { port_bindings: BTreeMap::from([(port.into(), vec![binding])]), ..HostConfig::default() })
    };
    let one = publish("80/tcp", "127.0.0.1", "8080").unwrap().ports.remove(0);
    assert_eq!((one.mapping.host_port, one.last_host_port, one.mapping.container_port), (8080, 8080, 80));
    assert_eq!(one.mapping.host_ip, Some("127.0.0.1".parse().unwrap()));
    let range = publish("80", "", "8000-8010").unwrap().ports.remove(0);
    assert_eq!((range.mapping.host_port, range.last_host_port), (8000, 8010));
    assert_eq!(publish("7000-7002/udp", "", "").unwrap().ports.len(), 3);
    for (port, ip, host_port) in [
        ("0", "", ""),
        ("70000", "", ""),
        ("80/icmp", "", ""),
        ("80", "host", ""),
        ("80", "", "9-8"),
        ("80", "", "+1"),
        ("x", "", ""),
    ] {
        assert!(publish(port, ip, host_port).is_err(), "{port} {ip} {host_port}");
    }
    let host_mode = HostConfig {
        network_mode: "host".into(),
        port_bindings: BTreeMap::from([("80/tcp".into(), vec![PortBinding::default()])]),
        ..HostConfig::default()
    };
    let request = parse(host_mode.clone()).unwrap();
    assert_eq!(request.warnings, ["Published ports are discarded when using host network mode"]);
    let none = HostConfig { network_mode: "none".into(), ..host_mode };
    assert_eq!(refused(none).message, "conflicting options: port publishing and network none");
}

/// S-011: each namespace can be chosen singly.
#[test]
fn s011_namespace_modes() {
    let uts =
        |mode: &str| parse(HostConfig { uts_mode: mode.into(), ..HostConfig::default() }).map(|r| r.namespaces.uts);
    assert_eq!(uts("host").unwrap(), NsMode::Host);
    assert_eq!(uts("container:web").unwrap(), NsMode::Container("web".into()));
    assert_eq!(uts("ns:/proc/1/ns/uts").unwrap(), NsMode::Path("/proc/1/ns/uts".into()));
    for bad in ["x", "container:", "ns:rel", "Host"] {
        assert!(uts(bad).is_err(), "{bad}");
    }
    let user =
        |mode: &str| parse(HostConfig { userns_mode: mode.into(), ..HostConfig::default() }).map(|r| r.namespaces.user);
    assert_eq!(user("auto").unwrap(), UserNsMode::Auto);
    assert_eq!(
        user("map:0:100000:65536").unwrap(),
        UserNsMode::Map(vec![IdRange { container: 0, host: 100_000, size: 65_536 }])
    );
    for bad in ["map:", "map:0:0:0", "map:1:100:10", "map:0:1:10,5:200:10", "map:0:4294967295:2", "map:+0:1:1"] {
        assert!(user(bad).is_err(), "{bad}");
    }
    let both = HostConfig { userns_mode: "auto".into(), privileged: true, ..HostConfig::default() };
    assert_eq!(refused(both).message, "privileged mode is incompatible with user namespaces");
    let network = HostConfig { network_mode: "mynet".into(), ..HostConfig::default() };
    assert_eq!(refused(network).class, ErrorClass::NotFound);
}

#[test]
fn security_options() {
    let option = |text: &str| parse(HostConfig { security_opt: vec![text.into()], ..HostConfig::default() });
    assert!(option("no-new-privileges").unwrap().security.no_new_privileges);
    let open = option("systempaths=unconfined").unwrap().security;
    assert!(open.masked_paths.is_empty() && open.readonly_paths.is_empty());
    assert!(matches!(option("seccomp={\"a\":1}").unwrap().security.seccomp, security::SeccompMode::Profile(_)));
    assert_eq!(option("apparmor=mine").unwrap_err().class, ErrorClass::FailedPrecondition);
    assert_eq!(option("label=type:x").unwrap_err().class, ErrorClass::FailedPrecondition);
    assert!(option("apparmor=unconfined").is_ok() && option("label=disable").is_ok());
    assert!(option("nonsense=1").is_err());
    let open = parse(HostConfig { privileged: true, ..HostConfig::default() }).unwrap().security;
    assert_eq!(
        (open.capabilities.len(), open.seccomp, open.masked_paths.len()),
        (41, security::SeccompMode::Unconfined, 0)
    );
}

/// No CAP_SYS_RESOURCE: clamp and say so instead of failing the container.
#[test]
fn what_the_host_cannot_raise_is_clamped_and_told() {
    let host = HostConfig {
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1 << 20, hard: 1 << 20 }],
        oom_score_adj: Some(-500),
        ..HostConfig::default()
    };
    let poor = HostFacts { capabilities: 0, ..facts() };
    let request = Request::parse(&ContainerConfig::default(), &host, &poor).unwrap();
    assert_eq!((request.rlimits[0].soft, request.rlimits[0].hard, request.oom_score_adj), (20_000, 20_000, 0));
    assert_eq!(request.warnings.len(), 2);
    let request = parse(host).unwrap();
    assert_eq!((request.rlimits[0].hard, request.oom_score_adj, request.warnings.len()), (1 << 20, -500, 0));
}

/// CVE-2022-0532: no sysctl of a namespace that is shared, none of the host, nothing smuggled.
#[test]
fn sysctls() {
    let sysctl = |name: &str, network: &str| {
        parse(HostConfig {
            sysctls: BTreeMap::from([(name.to_owned(), "1".to_owned())]),
            network_mode: network.into(),
            ..HostConfig::default()
        })
    };
    sysctl("net.ipv4.ip_forward", "").unwrap();
    sysctl("kernel.shmmax", "").unwrap();
    for (name, network) in [
        ("net.ipv4.ip_forward", "host"),
        ("kernel.panic", ""),
        ("vm.swappiness", ""),
        ("net/../kernel.x", ""),
        ("net.ipv4.a+b", ""),
        ("kernel.hostname", ""),
    ] {
        assert!(sysctl(name, network).is_err(), "{name} {network}");
    }
}

#[test]
fn process_and_policy() {
    let config = |change: fn(&mut ContainerConfig)| {
        let mut config = ContainerConfig::default();
        change(&mut config);
        Request::parse(&config, &HostConfig::default(), &facts())
    };
    assert!(config(|c| c.working_dir = "rel".into()).is_err());
    assert!(config(|c| c.hostname = "a/b".into()).is_err());
    assert!(config(|c| c.user = "4294967296".into()).is_err(), "CVE-2024-40635");
    assert!(config(|c| c.user = "2147483648".into()).is_err());
    assert!(config(|c| c.user = "app:1000".into()).is_ok());
    assert!(config(|c| c.stop_signal = "SIGNOPE".into()).is_err());
    assert!(config(|c| c.env = vec!["=x".into()]).is_err());
    let both = HostConfig { auto_remove: true, restart_policy: RestartPolicy::Always, ..HostConfig::default() };
    assert_eq!(refused(both).message, "can't create 'AutoRemove' container with restart policy");
    assert!(parse(HostConfig { cgroup_parent: "a.slice".into(), ..HostConfig::default() }).is_err());
    assert!(parse(HostConfig { cgroup_parent: "/../x".into(), ..HostConfig::default() }).is_err());
    assert_eq!(
        refused(HostConfig { log_driver: "syslog".into(), ..HostConfig::default() }).class,
        ErrorClass::Unimplemented
    );
    let log = |key: &str, value: &str| {
        parse(HostConfig { log_options: BTreeMap::from([(key.into(), value.into())]), ..HostConfig::default() })
    };
    assert!(
        log("max-size", "1m").is_ok()
            && log("max-file", "0").is_err()
            && log("tag", "x").is_err()
            && log("max-size", "1").is_err()
    );
    assert!(
        parse(HostConfig {
            extra_hosts: vec!["a:1.2.3.4".into(), "g:host-gateway".into(), "v6=[::1]".into()],
            ..HostConfig::default()
        })
        .is_ok()
    );
    assert!(parse(HostConfig { extra_hosts: vec!["a:b:c".into()], ..HostConfig::default() }).is_err());
    assert!(parse(HostConfig { dns: vec!["x".into()], ..HostConfig::default() }).is_err());
}
