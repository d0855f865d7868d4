//! The runtimes as command lines, each with the same bundle: `runb` beside Debian's runc and crun, and youki where it was built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use berth_testkit::peers::{binaries, busybox, peer, workspace};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::{Value, json};

use crate::Options;
use crate::engine::{directory, peer_command};
use crate::floor::Floor;
use crate::measure::{Candidate, in_turns, timed};
use crate::meter::Meter;
use crate::report::{Row, Table};

#[derive(Debug)]
struct Runtime {
    name: &'static str,
    meter: Meter,
    bundle: PathBuf,
}

impl Candidate for Runtime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl Runtime {
    fn new(name: &'static str) -> Self {
        let meter = Meter::new(name);
        let bundle = directory().join("oci").join(name);
        make_rootfs(&bundle.join("rootfs"));
        Self { name, meter, bundle }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.name {
            "runc" => peer_command("usr/sbin/runc"),
            "crun" => peer_command("usr/bin/crun"),
            "youki" => Command::new(youki()),
            _ => Command::new(binaries().join("runb")),
        };
        command.arg("--root").arg(format!("/run/bench-{}", self.name)).args(words).stdin(Stdio::null());
        command
    }

    /// The bundle's process, from the runtime's own cgroup on.
    fn configure(&self, arguments: &[&str], id: &str) {
        let mut config = config(arguments, &format!("{}/{id}", self.meter.cgroup_path()));
        if self.name == "youki" {
            // It looks for the v1 hierarchies' groups at another place than it makes them, and fails; so it has one mount less to do.
            config["mounts"].as_array_mut().expect("the bundle has mounts").retain(|mount| mount["type"] != "cgroup");
        }
        fs::write(self.bundle.join("config.json"), config.to_string()).unwrap();
    }

    fn bundle(&self) -> &str {
        self.bundle.to_str().expect("our own names are UTF-8")
    }

    /// The kernel's price of a container and of that many executions of a small static program; milliseconds.
    fn floor(&self, commands: usize) -> f64 {
        let floor = Floor::new(&self.bundle.join("rootfs"), &format!("{}/run", self.meter.cgroup_path()));
        let executions: f64 = (0..commands).map(|_| timed(Command::new(busybox()).arg("true"))).sum();
        executions + floor.run()
    }

    /// create, start, the program's end, delete: milliseconds of the three commands and the wait between.
    fn cycle(&self, id: &str) -> f64 {
        if self.name == "floor" {
            return self.floor(3);
        }
        self.configure(&["true"], id);
        let pid_file = self.bundle.join("pid");
        let pid_name = pid_file.to_str().expect("our own names are UTF-8").to_owned();
        let start = Instant::now();
        silent(&mut self.command(&["create", "--bundle", self.bundle(), "--pid-file", &pid_name, id]));
        silent(&mut self.command(&["start", id]));
        // We are process 1 here: what the runtime leaves behind is ours to reap.
        let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        waitpid(Some(pid), WaitOptions::empty()).unwrap();
        silent(&mut self.command(&["delete", id]));
        start.elapsed().as_secs_f64() * 1e3
    }
}

/// Built by `make bench`, where its crate compiles.
fn youki() -> PathBuf {
    workspace().join("target/youki/bin/youki")
}

/// Runs with its streams closed: `create` hands them to the container, whose end a pipe would wait for.
fn silent(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the runtime can be run");
    assert!(status.success(), "{command:?}: {status}");
}

pub fn run_all(options: &Options) -> Table {
    let mut table = Table::new("OCI runtime (medians)", "runb", &["crun", "runc", "youki", "floor"]);
    let wanted = |name: &str| name.contains(&options.only);
    if !["OCI cycle", "OCI run", "OCI exec", "OCI memory"].iter().any(|name| wanted(name)) {
        return table;
    }
    let names = ["runb", "crun", "runc", "youki", "floor"].into_iter();
    let runtimes: Vec<Runtime> = names.filter(|name| *name != "youki" || youki().exists()).map(Runtime::new).collect();
    let with_floor: Vec<&Runtime> = runtimes.iter().collect();
    let all = &with_floor[..runtimes.len() - 1];
    if wanted("OCI cycle") {
        let samples = in_turns(&with_floor, options.runs * 2, |runtime, round| runtime.cycle(&format!("c{round}")));
        table.extend(vec![
            Row::wall("create + start + delete of true", &samples),
            Row::p95("create + start + delete of true", &samples),
            Row::cpu("create + start + delete of true", &samples),
        ]);
    }
    if wanted("OCI run") {
        let samples = in_turns(&with_floor, options.runs * 2, |runtime, round| {
            if runtime.name == "floor" {
                return runtime.floor(1);
            }
            let id = format!("r{round}");
            runtime.configure(&["true"], &id);
            timed(&mut runtime.command(&["run", "--bundle", runtime.bundle(), &id]))
        });
        table.extend(vec![Row::wall("run of true", &samples), Row::cpu("run of true", &samples)]);
    }
    if wanted("OCI exec") {
        for row in exec(all, options.runs * 2) {
            table.push(row);
        }
    }
    if wanted("OCI memory") {
        table.push(peak_memory(all));
    }
    table
}

fn exec(runtimes: &[&Runtime], runs: usize) -> Vec<Row> {
    for runtime in runtimes {
        runtime.meter.enter();
        runtime.configure(&["sleep", "100000"], "target");
        silent(&mut runtime.command(&["run", "--detach", "--bundle", runtime.bundle(), "target"]));
    }
    let samples = in_turns(runtimes, runs, |runtime, _| timed(&mut runtime.command(&["exec", "target", "true"])));
    for runtime in runtimes {
        silent(&mut runtime.command(&["delete", "--force", "target"]));
    }
    vec![Row::wall("exec true", &samples), Row::cpu("exec true", &samples)]
}

/// The largest resident set of any process of a `run`, MiB, as `time -v` of a small program sees it.
fn peak_memory(runtimes: &[&Runtime]) -> Row {
    let values = runtimes.iter().map(|runtime| {
        runtime.configure(&["true"], "peak");
        let inner = runtime.command(&["run", "--bundle", runtime.bundle(), "peak"]);
        let mut command = Command::new(busybox());
        command.args(["time", "-v"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.contains("Maximum resident set size")).expect("time -v prints it");
        let kib: f64 = line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number of KiB");
        // It counts in pages of 4 KiB where the kernel counts in KiB.
        (runtime.name, kib / 4.0 / 1024.0)
    });
    Row::plain("peak memory of a run, MiB", values.collect())
}

fn make_rootfs(rootfs: &Path) {
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    fs::copy(busybox(), rootfs.join("bin/busybox")).unwrap();
    for applet in ["sh", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
}

/// What an engine asks of a runtime: `runc spec`'s container with Docker's masks, capabilities and a filter of many calls.
fn config(arguments: &[&str], cgroup: &str) -> Value {
    let mut config: Value = serde_json::from_slice(&spec()).expect("runc spec writes JSON");
    config["process"]["args"] = json!(arguments);
    config["process"]["terminal"] = json!(false);
    config["process"]["rlimits"] = json!([]);
    config["root"]["readonly"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(cgroup);
    config["linux"]["seccomp"] = seccomp();
    config
}

fn spec() -> Vec<u8> {
    let dir = directory().join("oci");
    let file = dir.join("config.json");
    if !file.exists() {
        silent(Command::new(peer("usr/sbin/runc")).args(["spec", "--bundle"]).arg(&dir));
    }
    fs::read(file).unwrap()
}

/// An allow-list of the size of the field's default profile.
fn seccomp() -> Value {
    let names: Vec<&str> = include_str!("syscalls.txt").split_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0x7E02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
        ],
    })
}
