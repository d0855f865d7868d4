//! The systemd driver beside a real systemd. Run inside a virtual machine: `cargo test -p berth-cgroup --test kernel_systemd -- --ignored`.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_cgroup::{
    BlockIo, Cgroup, CgroupError, Cpu, DeviceRule, Instance, Layout, Memory, Resources, ScopeRequest, ThrottleDevice,
    UnitName, Version, plan,
};
use berth_types::{Classify, ErrorClass, Signal};
use rustix::process::Pid;
use support::{WAIT, disk, until};

const MEBIBYTE: i64 = 1 << 20;

/// A scope with one process in it; gone with everything when dropped.
struct Scope {
    layout: Layout,
    group: Cgroup,
    name: UnitName,
    process: Child,
}

impl Scope {
    fn start(name: &str, resources: &Resources) -> Self {
        Self::try_start(&Instance::System, &format!("berthtest.slice:berth:{name}"), resources).expect("works")
    }

    fn try_start(instance: &Instance, path: &str, resources: &Resources) -> Result<Self, CgroupError> {
        let layout = Layout::detect().expect("works");
        let name = UnitName::parse(path, instance).expect("works");
        let settings = plan(&layout, resources)?;
        let mut process = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().expect("works");
        let pid = Pid::from_child(&process);
        let request =
            ScopeRequest { instance, name: &name, description: "a test", pid, settings: &settings, timeout: WAIT };
        match Cgroup::start_scope(&layout, &request) {
            Ok(group) => Ok(Self { layout, group, name, process }),
            Err(error) => {
                process.kill().ok();
                process.wait().ok();
                Err(error)
            }
        }
    }

    fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        self.group.apply(&plan(&self.layout, resources).expect("works"))
    }

    /// Properties as `systemctl show` prints them, in the order asked for.
    fn show(&self, properties: &[&str]) -> Vec<String> {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["show", self.name.scope(), "--property", &properties.join(",")]);
        let output = systemctl.output().expect("works");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("works");
        let value =
            |name: &&str| text.lines().find(|line| line.split('=').next() == Some(*name)).unwrap_or(name).to_owned();
        properties.iter().map(value).collect()
    }

    /// The scope's directory in the hierarchy of a controller (v2 where that is the only one).
    fn directory(&self, controller: &str) -> PathBuf {
        let paths = self.group.paths();
        let key = if self.layout.version == Version::V2 { "" } else { controller };
        paths[key].clone()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        std::fs::read_to_string(self.directory(controller).join(file)).expect("works").trim().to_owned()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let killed = self.group.kill_all(Signal::KILL, WAIT);
        self.process.kill().ok();
        self.process.wait().ok();
        let deleted = self.group.delete(WAIT);
        if !std::thread::panicking() {
            killed.expect("kill");
            deleted.expect("delete");
            assert!(self.group.paths().values().all(|path| !path.exists()), "directories are left");
            assert_eq!(self.show(&["LoadState"]), ["LoadState=not-found"]);
        }
    }
}

fn systemctl(verb: &str) {
    assert!(Command::new("systemctl").arg(verb).status().expect("works").success(), "systemctl {verb}");
}

fn v2() {
    assert_eq!(Layout::detect().expect("works").version, Version::V2, "needs a host with cgroup v2 alone");
}

fn resources() -> Resources {
    let (major, minor) = disk();
    let rate = |rate| vec![ThrottleDevice { major, minor, rate }];
    Resources {
        cpu: Cpu { shares: Some(512), quota_us: Some(50_000), period_us: Some(100_000), ..Cpu::default() },
        memory: Memory {
            limit: Some(64 * MEBIBYTE),
            reservation: Some(32 * MEBIBYTE),
            swap: Some(96 * MEBIBYTE),
            ..Memory::default()
        },
        pids_limit: Some(20),
        block_io: BlockIo { read_bps: rate(1 << 20), write_iops: rate(100), ..BlockIo::default() },
        devices: DeviceRule::container_defaults().to_vec(),
        ..Resources::default()
    }
}

const PROPERTIES: [&str; 13] = [
    "Slice",
    "Description",
    "Delegate",
    "MemoryMax",
    "MemoryLow",
    "MemorySwapMax",
    "CPUWeight",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "TasksMax",
    "DevicePolicy",
    "CollectMode",
    "ActiveState",
];

/// S-044: the scope is in the asked slice, and the limits are its properties, in force in the kernel.
/// S-045: `daemon-reload` and `daemon-reexec` change none of them, before and after an update.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s044_s045_limits_are_properties_and_survive_a_reload() {
    v2();
    let scope = Scope::start("limits", &resources());
    let shown = [
        "Slice=berthtest.slice",
        "Description=a test",
        "Delegate=yes",
        "MemoryMax=67108864",
        "MemoryLow=33554432",
        "MemorySwapMax=33554432",
        "CPUWeight=59",
        "CPUQuotaPerSecUSec=500ms",
        "CPUQuotaPeriodUSec=100ms",
        "TasksMax=20",
        "DevicePolicy=strict",
        "CollectMode=inactive-or-failed",
        "ActiveState=active",
    ];
    assert_eq!(scope.show(&PROPERTIES), shown);
    assert_eq!(scope.group.path(), "systemd:/berthtest.slice/berth-limits.scope");
    let (major, minor) = disk();
    let files = || {
        let names = ["memory.max", "memory.low", "cpu.weight", "cpu.max", "pids.max", "io.max"];
        names.map(|file| scope.read("", file))
    };
    let io = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100");
    let in_force = ["67108864", "33554432", "59", "50000 100000", "20", &io];
    assert_eq!(files(), in_force);
    for verb in ["daemon-reload", "daemon-reexec"] {
        systemctl(verb);
        assert_eq!(scope.show(&PROPERTIES), shown, "{verb}");
        assert_eq!(files(), in_force, "{verb}");
    }
    let cpu = Cpu { quota_us: Some(12_345), ..Cpu::default() };
    let memory = Memory { limit: Some(-1), ..Memory::default() };
    scope.apply(&Resources { cpu, memory, pids_limit: Some(-1), ..Resources::default() }).unwrap();
    // Rounded up to a whole per cent of a second, which is what systemd keeps.
    let in_force = ["max", "33554432", "59", "13000 100000", "max", &io];
    assert_eq!(files(), in_force);
    systemctl("daemon-reload");
    assert_eq!(files(), in_force);
    assert_eq!(scope.show(&["MemoryMax", "TasksMax"]), ["MemoryMax=infinity", "TasksMax=infinity"]);
}

/// What systemd has no property for is written to the file, and a reload leaves it alone.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s045_what_systemd_does_not_know_is_ours_and_stays() {
    v2();
    let unified = [("memory.high", "50331648"), ("memory.oom.group", "1"), ("cgroup.max.depth", "3")];
    let unified = unified.into_iter().map(|(file, value)| (file.to_owned(), value.to_owned())).collect();
    let cpu = Cpu { quota_us: Some(50_000), burst_us: Some(1000), ..Cpu::default() };
    let scope = Scope::start("direct", &Resources { unified, cpu, ..Resources::default() });
    let files =
        || ["memory.high", "memory.oom.group", "cgroup.max.depth", "cpu.max.burst"].map(|file| scope.read("", file));
    assert_eq!(files(), ["50331648", "1", "3", "1000"]);
    systemctl("daemon-reload");
    assert_eq!(files(), ["50331648", "1", "3", "1000"]);
    assert_eq!(scope.show(&["MemoryHigh"]), ["MemoryHigh=50331648"]);
}

/// S-045: no knob that systemd owns is written by us: with the hierarchy read-only for this process all of it works the same.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s045_nothing_is_written_behind_systemd() {
    v2();
    let is_writable = || rustix::fs::access("/sys/fs/cgroup/cgroup.procs", rustix::fs::Access::WRITE_OK).is_ok();
    if is_writable() {
        let test = std::env::current_exe().unwrap();
        let name = "s045_nothing_is_written_behind_systemd";
        let script = "mount -o remount,bind,ro /sys/fs/cgroup && exec \"$0\" --ignored --exact \"$1\"";
        let mut unshare = Command::new("unshare");
        let status = unshare.args(["-m", "sh", "-c", script]).arg(test).arg(name).status().unwrap();
        assert!(status.success());
        return;
    }
    let scope = Scope::start("readonly", &resources());
    assert_eq!(scope.read("", "memory.max"), "67108864");
    let memory = Memory { limit: Some(128 * MEBIBYTE), ..Memory::default() };
    scope.apply(&Resources { memory, pids_limit: Some(7), ..Resources::default() }).unwrap();
    assert_eq!((scope.read("", "memory.max"), scope.read("", "pids.max")), ("134217728".into(), "7".into()));
    // The scope cannot be killed through the read-only file; its process can.
    rustix::process::kill_process(Pid::from_child(&scope.process), rustix::process::Signal::KILL).unwrap();
    until("systemd lets the empty scope go", || !scope.directory("").exists());
}

/// S-053: systemd's own device program is in force.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s053_systemd_keeps_devices_out() {
    v2();
    let scope = Scope::start("devices", &resources());
    let nodes = tempfile::tempdir().unwrap();
    let attach = format!("echo 0 > {}/cgroup.procs", scope.directory("").display());
    let run = |script: &str| {
        let output =
            Command::new("sh").args(["-c", &format!("{attach}; cd {}; {script}", nodes.path().display())]).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("mknod null c 1 3 && : > null && mknod kmsg c 1 11 && mknod x b 8 1"), (true, String::new()));
    let (ok, stderr) = run("head -c 1 kmsg");
    assert!(!ok && stderr.contains("Operation not permitted"), "{stderr}");
}

#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn failures_are_named_and_leave_nothing() {
    v2();
    let first = Scope::start("twice", &Resources::default());
    let second = Scope::try_start(&Instance::System, "berthtest.slice:berth:twice", &Resources::default());
    let error = second.err().unwrap();
    assert_eq!(error.class(), ErrorClass::AlreadyExists, "{error:?}");
    assert_eq!(error.to_string(), "cannot start berth-twice.scope by systemd");
    assert_eq!(first.show(&["ActiveState"]), ["ActiveState=active"]);

    // A file the kernel refuses after the scope is there: the scope goes again.
    let unified = [("cgroup.max.depth".to_owned(), "nonsense".to_owned())].into_iter().collect();
    let refused = Scope::try_start(
        &Instance::System,
        "berthtest.slice:berth:refused",
        &Resources { unified, ..Resources::default() },
    );
    assert!(matches!(refused.err().unwrap(), CgroupError::Write { .. }));
    assert!(!Path::new("/sys/fs/cgroup/berthtest.slice/berth-refused.scope").exists());

    // A weight on a kernel without a scheduler for it would be taken in silence by systemd.
    let weight = Resources { block_io: BlockIo { weight: Some(100), ..BlockIo::default() }, ..Resources::default() };
    let has_weight =
        first.directory("").join("io.weight").exists() || first.directory("").join("io.bfq.weight").exists();
    match Scope::try_start(&Instance::System, "berthtest.slice:berth:weight", &weight) {
        Ok(_) => assert!(has_weight),
        Err(error) => assert!(!has_weight && matches!(error, CgroupError::NoFile { .. }), "{error}"),
    }

    let nobody = Instance::User { runtime_dir: "/run/user/4711".into() };
    let error = Scope::try_start(&nobody, ":berth:nobody", &Resources::default()).err().unwrap();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(error.hint().unwrap().contains("cgroupfs"));
}

/// A scope opened by another process (after a restart) is the same one: found by reference and by name, changed and ended.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn a_scope_is_found_again() {
    v2();
    let scope = Scope::start("again", &Resources::default());
    for path in [scope.group.path(), "berthtest.slice:berth:again"] {
        let found = Cgroup::open(&scope.layout, path).unwrap();
        assert!(found.is_scope());
        assert_eq!(found.pids().unwrap(), [Pid::from_child(&scope.process)]);
    }
    let found = Cgroup::open(&scope.layout, scope.group.path()).unwrap();
    let limit = Resources { pids_limit: Some(9), ..Resources::default() };
    found.apply(&plan(&scope.layout, &limit).unwrap()).unwrap();
    assert_eq!(scope.show(&["TasksMax"]), ["TasksMax=9"]);
    found.freeze(WAIT).unwrap();
    assert!(scope.group.frozen().unwrap());
}

/// S-045: rootless, with the user's own systemd. Started by root, runs as user 1000 (see tests/vm/guest.sh).
#[test]
#[ignore = "needs systemd --user: run in the test VM"]
fn s045_rootless_a_user_has_scopes_of_his_own() {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        let test = std::env::current_exe().unwrap();
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(test);
        let status = setpriv.args(["--ignored", "--exact", "s045_rootless_a_user_has_scopes_of_his_own"]).status();
        assert!(status.unwrap().success());
        return;
    }
    let instance = Instance::User { runtime_dir: format!("/run/user/{uid}").into() };
    let memory = Memory { limit: Some(64 * MEBIBYTE), ..Memory::default() };
    let resources = Resources { memory, pids_limit: Some(5), ..Resources::default() };
    let scope = Scope::try_start(&instance, ":berth:rootless", &resources).unwrap();
    let place = format!("systemd:/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/berth-rootless.scope");
    assert_eq!(scope.group.path(), place);
    assert_eq!((scope.read("", "memory.max"), scope.read("", "pids.max")), ("67108864".into(), "5".into()));
    // The scope is delegated: groups of his own below it. A process outside of what is his, systemd moves in for him.
    std::fs::create_dir(scope.directory("").join("inner")).unwrap();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    scope.group.attach_unified(Pid::from_child(&other)).unwrap();
    assert_eq!(scope.group.pids().unwrap().len(), 2);
    other.kill().unwrap();
    other.wait().unwrap();
    let found = Cgroup::open(&scope.layout, scope.group.path()).unwrap();
    let limit = Resources { pids_limit: Some(9), ..Resources::default() };
    found.apply(&plan(&scope.layout, &limit).unwrap()).unwrap();
    assert_eq!(scope.read("", "pids.max"), "9");
}

/// S-040, S-044, S-045 on v1: the properties of old, what systemd does not manage in the other hierarchies, and a reload.
#[test]
#[ignore = "needs systemd and cgroup v1: run in the test VM"]
fn s044_v1_host_limits_are_properties() {
    let layout = Layout::detect().unwrap();
    assert_ne!(layout.version, Version::V2, "needs a host booted with cgroup v1");
    let resources = Resources {
        cpu: Cpu { shares: Some(512), quota_us: Some(50_000), period_us: Some(100_000), ..Cpu::default() },
        // Newer kernels have no memory controller on v1; it is on the v2 hierarchy then, and systemd leaves it to us.
        memory: Memory { limit: Some(64 * MEBIBYTE), ..Memory::default() },
        pids_limit: Some(20),
        devices: DeviceRule::container_defaults().to_vec(),
        ..Resources::default()
    };
    let scope = Scope::start("old", &resources);
    let files = || {
        [("cpu", "cpu.shares"), ("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.cfs_period_us"), ("pids", "pids.max")]
            .map(|(controller, file)| scope.read(controller, file))
    };
    let in_force = ["512", "50000", "100000", "20"];
    assert_eq!(files(), in_force);
    let is_old = scope.group.paths().contains_key("memory");
    let memory = if is_old {
        scope.directory("memory").join("memory.limit_in_bytes")
    } else {
        scope.group.paths()[""].join("memory.max")
    };
    assert_eq!(std::fs::read_to_string(&memory).unwrap(), "67108864\n");
    let shown = scope.show(&["TasksMax", "CPUQuotaPerSecUSec", "DevicePolicy", "Slice"]);
    assert_eq!(shown, ["TasksMax=20", "CPUQuotaPerSecUSec=500ms", "DevicePolicy=strict", "Slice=berthtest.slice"]);
    let devices = scope.read("devices", "devices.list");
    assert!(devices.contains("c 1:3 rwm") && !devices.contains("a *:*"), "{devices}");
    systemctl("daemon-reload");
    assert_eq!(files(), in_force);
    assert_eq!(std::fs::read_to_string(&memory).unwrap(), "67108864\n");
    let update = Resources { pids_limit: Some(7), ..Resources::default() };
    scope.apply(&update).unwrap();
    assert_eq!(scope.read("pids", "pids.max"), "7");
    // Processes are attached to every hierarchy by the caller; systemd knows its own.
    scope.group.attach(Pid::from_child(&scope.process)).unwrap();
    assert_eq!(scope.read("freezer", "cgroup.procs"), scope.process.id().to_string());
    scope.group.freeze(WAIT).unwrap();
    assert_eq!(scope.read("freezer", "freezer.state"), "FROZEN");
}
