use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Capability, LinuxNamespaceType};
use berth_types::{Digest, Timestamp};

use super::*;
use crate::config::{ContainerConfig, HostConfig};
use crate::host::tests::facts;
use crate::record::{RECORD_VERSION, RunState};

fn record(config: ContainerConfig, host: HostConfig) -> Record {
    Record {
        version: RECORD_VERSION,
        id: "0123456789abcdef".parse().unwrap(),
        name: "web".into(),
        created: Timestamp(0),
        config: config.into(),
        host: host.into(),
        image_id: Digest::from_bytes([1; 32]),
        image_name: "busybox".into(),
        mounts: Vec::new(),
        volumes: Vec::new(),
        id_block: None,
        endpoint: None,
        state: RunState::created(),
    }
}

struct Made {
    spec: Spec,
    reasons: Vec<Reason>,
}

fn make_with(config: ContainerConfig, host: HostConfig, change: impl FnOnce(&mut SpecInput<'_>)) -> Made {
    let facts = facts();
    let record = record(config, host);
    let request = Request::parse(&record.config, &record.host, &facts).unwrap();
    let namespaces = NamespacePaths { network: Some("/proc/1/fd/9".into()), ..NamespacePaths::default() };
    let mut input = SpecInput {
        record: &record,
        request: &request,
        facts: &facts,
        cgroup_path: "/berth/0123",
        files_dir: Path::new("/run/berth/tasks/0123"),
        namespaces: &namespaces,
        id_maps: &[],
        init_binary: None,
        seccomp_program: Some(Path::new("/run/berth/seccomp/x.bpf")),
        devices: &[],
        block_devices: &BlockDevices::new(),
        volumes: &BTreeMap::new(),
        shared_shm: None,
    };
    change(&mut input);
    let (spec, reasons) = generate(&input);
    Made { spec, reasons }
}

fn command(args: &[&str]) -> ContainerConfig {
    ContainerConfig { cmd: Some(args.iter().map(|a| (*a).to_owned()).collect()), ..ContainerConfig::default() }
}

fn make(host: HostConfig) -> Made {
    make_with(command(&["sh"]), host, |_| {})
}

impl Made {
    fn kinds(&self) -> Vec<LinuxNamespaceType> {
        let namespaces = self.spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
        namespaces.iter().map(berth_oci::runtime::LinuxNamespace::typ).collect()
    }

    fn mount(&self, target: &str) -> Option<&berth_oci::runtime::Mount> {
        self.spec.mounts().as_ref().unwrap().iter().find(|m| m.destination() == Path::new(target))
    }

    fn options(&self, target: &str) -> Vec<String> {
        self.mount(target).unwrap().options().clone().unwrap()
    }

    fn place(&self, target: &str) -> usize {
        self.spec.mounts().as_ref().unwrap().iter().position(|m| m.destination() == Path::new(target)).unwrap()
    }
}

/// S-010: a plain container has seven namespaces of its own, the user namespace only when asked (S-023).
#[test]
fn s010_default_namespaces() {
    use LinuxNamespaceType as T;
    assert_eq!(make(HostConfig::default()).kinds(), [T::Mount, T::Network, T::Uts, T::Ipc, T::Pid, T::Cgroup]);
    let host = HostConfig {
        network_mode: "host".into(),
        pid_mode: "host".into(),
        ipc_mode: "host".into(),
        uts_mode: "host".into(),
        cgroupns_mode: "host".into(),
        ..HostConfig::default()
    };
    let made = make(host);
    assert_eq!(made.kinds(), [T::Mount]);
    assert!(made.spec.hostname().is_none(), "the host's name is not ours to set");
    assert_eq!(made.options("/dev/shm")[0], "rbind");
}

#[test]
fn s021_user_namespace_maps() {
    let host = HostConfig { userns_mode: "map:0:100000:65536".into(), ..HostConfig::default() };
    let range: &'static _ =
        Box::leak(Box::new(crate::request::namespaces::IdRange { container: 0, host: 100_000, size: 65_536 }));
    let made = make_with(command(&["sh"]), host, |input| input.id_maps = std::slice::from_ref(range));
    assert!(made.kinds().contains(&LinuxNamespaceType::User));
    let linux = made.spec.linux().as_ref().unwrap();
    for maps in [linux.uid_mappings(), linux.gid_mappings()] {
        let maps = maps.as_ref().unwrap();
        assert_eq!((maps[0].container_id(), maps[0].host_id(), maps[0].size()), (0, 100_000, 65_536));
    }
    assert!(!linux.sysctl().as_ref().unwrap().contains_key("net.ipv4.ping_group_range"));
}

#[test]
fn process_environment_and_user() {
    let config = ContainerConfig {
        env: vec!["A=1".into(), "PATH=/bin".into()],
        user: "1000:app".into(),
        working_dir: "/srv".into(),
        tty: true,
        entrypoint: Some(vec!["/entry".into()]),
        ..command(&["x"])
    };
    let made = make_with(config, HostConfig::default(), |_| {});
    let process = made.spec.process().as_ref().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["/entry", "x"]);
    assert_eq!(process.env().as_ref().unwrap(), &["PATH=/bin", "HOSTNAME=0123456789ab", "TERM=xterm", "A=1"]);
    assert_eq!(process.cwd(), Path::new("/srv"));
    assert_eq!(process.user().username().as_deref(), Some("1000:app"));
    assert_eq!((process.user().uid(), process.terminal()), (1000, Some(true)));
    assert_eq!(process.no_new_privileges(), Some(false));
}

/// CVE-2022-24769, CVE-2016-8867: nothing inheritable, nothing ambient.
#[test]
fn capabilities_are_fourteen_and_not_inheritable() {
    let made = make(HostConfig::default());
    let capabilities = made.spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
    for set in [capabilities.bounding(), capabilities.effective(), capabilities.permitted()] {
        let set = set.as_ref().unwrap();
        assert_eq!(set.len(), 14);
        assert!(set.contains(&Capability::NetBindService) && !set.contains(&Capability::SysAdmin));
    }
    assert!(capabilities.inheritable().is_none() && capabilities.ambient().is_none());
}

#[test]
fn init_is_bound_and_runs_the_command() {
    let made = make_with(command(&["sh"]), HostConfig::default(), |input| {
        input.init_binary = Some(Path::new("/run/berth/berth-init"));
    });
    let args = made.spec.process().as_ref().unwrap().args().as_ref().unwrap().clone();
    assert_eq!(args, ["/sbin/docker-init", "--", "sh"]);
    assert!(made.options("/sbin/docker-init").contains(&"ro".to_owned()));
}

/// S-053: everything is denied but the default nodes; a device adds its rule, a rule alone adds no node.
#[test]
fn s053_device_rules() {
    let host = HostConfig { device_cgroup_rules: vec!["c 42:* rw".into()], ..HostConfig::default() };
    let device: &'static _ = Box::leak(Box::new(HostDevice {
        path: "/dev/fuse".into(),
        kind: 'c',
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    }));
    let made = make_with(command(&["sh"]), host, |input| input.devices = std::slice::from_ref(device));
    let linux = made.spec.linux().as_ref().unwrap();
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert!(!rules[0].allow() && rules[0].major().is_none(), "deny comes first");
    let shown: Vec<_> =
        rules.iter().rev().take(2).map(|r| (r.major(), r.minor(), r.access().clone().unwrap())).collect();
    assert_eq!(shown, [(Some(42), None, "rw".to_owned()), (Some(10), Some(229), "rw".to_owned())]);
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    let open = make(HostConfig { privileged: true, ..HostConfig::default() });
    let rules = open.spec.linux().as_ref().unwrap().resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(rules.len() == 1 && rules[0].allow());
}

/// S-014: read-only covers sub-mounts; what was asked replaces a default of the same place; parents come first.
#[test]
fn s014_mounts() {
    let host = HostConfig {
        binds: vec!["/srv/x:/x/y:ro".into(), "/srv/shm:/dev/shm".into(), "/srv/etc:/etc".into()],
        tmpfs: [("/x".to_owned(), String::new())].into(),
        ..HostConfig::default()
    };
    let made = make(host);
    assert_eq!(made.options("/x/y"), ["rbind", "rprivate", "ro", "rro"]);
    assert_eq!(made.mount("/dev/shm").unwrap().typ().as_deref(), Some("bind"));
    assert!(made.place("/x") < made.place("/x/y"));
    assert!(made.place("/etc") < made.place("/etc/hosts"), "our files lie over a bound /etc");
    assert!(made.reasons.contains(&Reason { object: "/x/y".into(), reason: "flag -v /srv/x:/x/y:ro".into() }));
    assert_eq!(made.mount("/etc/hosts").unwrap().source().as_deref(), Some(Path::new("/run/berth/tasks/0123/hosts")));
}

#[test]
fn kernel_file_systems() {
    let made = make(HostConfig { shm_size_bytes: Some(1 << 20), ..HostConfig::default() });
    assert_eq!(made.options("/dev/shm").last().unwrap(), "size=1048576");
    assert!(
        made.options("/sys").contains(&"ro".to_owned()) && made.options("/sys/fs/cgroup").contains(&"ro".to_owned())
    );
    let linux = made.spec.linux().as_ref().unwrap();
    assert!(linux.masked_paths().as_ref().unwrap().contains(&"/proc/kcore".to_owned()));
    assert_eq!(linux.readonly_paths().as_ref().unwrap().len(), 5);
    let open = make(HostConfig { privileged: true, ..HostConfig::default() });
    assert!(!open.options("/sys").contains(&"ro".to_owned()));
    assert!(open.spec.linux().as_ref().unwrap().masked_paths().as_ref().unwrap().is_empty());
    let none = make(HostConfig { ipc_mode: "none".into(), ..HostConfig::default() });
    assert!(none.mount("/dev/shm").is_none());
}

/// S-042, S-043, S-051, S-060: flags become limits in the spec's units.
#[test]
fn s042_limits() {
    let mut host = HostConfig::default();
    host.resources.memory = Some(64 << 20);
    host.resources.nano_cpus = Some(500_000_000);
    host.resources.cpu_shares = Some(512);
    host.resources.pids_limit = Some(20);
    host.resources.cpuset_cpus = "0".into();
    let made = make(host);
    let resources = made.spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)), "as much swap again, as Docker");
    let cpu = resources.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(50_000), Some(100_000), Some(512)));
    assert_eq!(cpu.cpus().as_deref(), Some("0"));
    assert_eq!(resources.pids().unwrap().limit(), 20);
    let free = make(HostConfig::default());
    let resources = free.spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert!(resources.memory().is_none() && resources.cpu().is_none() && resources.pids().is_none());
}

#[test]
fn block_io_needs_known_devices() {
    let mut host = HostConfig::default();
    host.resources.device_write_bps = vec![("/dev/sda".into(), 1000)];
    let devices = BlockDevices::from([(PathBuf::from("/dev/sda"), (8, 0))]);
    let resources = resources::for_update(&host.resources, &devices);
    let rate = resources.block_io().as_ref().unwrap().throttle_write_bps_device().as_ref().unwrap()[0];
    assert_eq!((rate.major(), rate.minor(), rate.rate()), (8, 0, 1000));
}

#[test]
fn annotations_for_our_runtime() {
    let config = ContainerConfig { trace: true, ..command(&["sh"]) };
    let host = HostConfig { group_add: vec!["audio".into(), "20".into()], ..HostConfig::default() };
    let made = make_with(config, host, |_| {});
    let annotations = made.spec.annotations().as_ref().unwrap();
    assert_eq!(annotations[annotation::GROUP_ADD], "audio,20");
    assert_eq!(annotations[annotation::TRACE], "true");
    assert_eq!(annotations[annotation::SECCOMP_PROGRAM], "/run/berth/seccomp/x.bpf");
}

/// S-161: an added process is like the container's own unless asked otherwise.
#[test]
fn s161_exec_inherits() {
    let config =
        ContainerConfig { env: vec!["A=1".into()], user: "app".into(), working_dir: "/srv".into(), ..command(&["sh"]) };
    let record = record(config, HostConfig { cap_drop: vec!["ALL".into()], ..HostConfig::default() });
    let request = Request::parse(&record.config, &record.host, &facts()).unwrap();
    let wish = crate::api::ExecConfig { cmd: vec!["ls".into()], env: vec!["B=2".into()], ..Default::default() };
    let own = process::exec(&record, &request, &wish, Some((24, 80)));
    assert_eq!(own.cwd(), Path::new("/srv"));
    assert_eq!(own.user().username().as_deref(), Some("app"));
    assert!(own.env().as_ref().unwrap().ends_with(&["A=1".to_owned(), "B=2".to_owned()]));
    assert!(own.capabilities().as_ref().unwrap().effective().as_ref().unwrap().is_empty());
    assert_eq!((own.console_size().unwrap().height(), own.console_size().unwrap().width()), (24, 80));
    let wish = crate::api::ExecConfig { privileged: true, user: "0".into(), ..wish };
    let other = process::exec(&record, &request, &wish, None);
    assert_eq!(other.capabilities().as_ref().unwrap().effective().as_ref().unwrap().len(), 41);
    assert_eq!(other.user().username().as_deref(), Some("0"));
}
