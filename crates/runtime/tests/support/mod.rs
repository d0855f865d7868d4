//! A runner without threads, and a busybox root to run containers in.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use berth_oci::runtime::Spec;
use berth_runtime::{Container, CreateOptions, Process, Rootfs, RuntimeError, Stdio, Tuning};
use berth_types::Span;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions};
use serde_json::{Value, json};

pub(crate) type Test = (&'static str, fn());

/// Runs the tests whose names contain the arguments; without `--child`, each in a process of its own.
pub(crate) fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--child"
    {
        let (_, test) = tests.iter().find(|(known, _)| known == name).expect("a test of this name");
        private_mounts();
        test();
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = Vec::new();
    let me = std::env::current_exe().unwrap();
    for (name, _) in tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f))) {
        let begun = Instant::now();
        let mounts = mount_count();
        let mut child = Command::new(&me).args(["--child", name]).spawn().unwrap();
        let status = child.wait().unwrap();
        let left = remove_cgroups(child.id());
        let is_clean = left.is_empty() && mount_count() == mounts;
        let verdict = if !status.success() {
            "FAILED"
        } else if !is_clean {
            println!("left behind: {left:?}");
            "FAILED (left something behind)"
        } else {
            "ok"
        };
        println!("test {name} ... {verdict} ({} ms)", begun.elapsed().as_millis());
        if verdict != "ok" {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}

fn mount_count() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

/// Cgroups that this process made for its containers, in every hierarchy.
pub(crate) fn own_cgroups() -> Vec<PathBuf> {
    cgroups_of(std::process::id())
}

fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("rt-{pid}-");
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        let mount = line.split(' ').nth(4).unwrap();
        if line.contains(" - cgroup") {
            for entry in fs::read_dir(Path::new(mount).join("berth-test")).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
            }
        }
    }
    found.sort();
    found
}

/// After a test that failed half-way: ends its containers and removes their groups. What there was.
fn remove_cgroups(pid: u32) -> Vec<PathBuf> {
    let left = cgroups_of(pid);
    let layout = berth_cgroup::Layout::detect().unwrap();
    for path in &left {
        let name = path.file_name().unwrap().to_string_lossy();
        let Ok(group) = berth_cgroup::Cgroup::open(&layout, &format!("/berth-test/{name}")) else { continue };
        let timeout = Duration::from_secs(10);
        group.kill_all(berth_types::Signal::KILL, timeout).unwrap();
        group.delete(timeout).unwrap();
    }
    left
}

fn private_mounts() {
    berth_sys::namespace::unshare_namespaces(rustix::thread::UnshareFlags::NEWNS).unwrap();
    use rustix::mount::MountPropagationFlags;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

pub(crate) fn peer(path: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    #[expect(clippy::disallowed_methods, reason = "where the peers are is the environment's to say")]
    let peers = std::env::var("BERTH_PEERS").map_or(default, PathBuf::from);
    let found = peers.join(path);
    assert!(found.exists(), "{} is missing: run tests/fetch-peers.sh", found.display());
    found
}

/// A bundle with a busybox root file system.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) overlay: bool,
    pub(crate) id: String,
    pub(crate) tuning: Tuning,
}

impl Bundle {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "root"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy(peer("root/bin/busybox"), rootfs.join("bin/busybox")).unwrap();
        let applets = Command::new(peer("root/bin/busybox")).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:50:web\n").unwrap();
        let id = new_id();
        let spec = default_spec(&id);
        Self { dir, spec, overlay: false, id, tuning: Tuning::default() }
    }

    /// A new id, and with it a new cgroup, for the same root file system.
    pub(crate) fn renew(&mut self) {
        self.id = new_id();
        self.spec["linux"]["cgroupsPath"] = json!(format!("/berth-test/{}", self.id));
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    pub(crate) fn sh(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    pub(crate) fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.spec.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// The busybox root becomes the lower layer of an overlay.
    pub(crate) fn overlay(mut self) -> Self {
        self.overlay = true;
        self
    }

    pub(crate) fn user_ns(self) -> Self {
        let namespaces: Vec<Value> = ["mount", "pid", "ipc", "uts", "network", "cgroup", "user"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        self.set("/linux/namespaces", json!(namespaces))
            .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
            .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]))
    }

    pub(crate) fn spec(&self) -> Spec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    pub(crate) fn create_with(&mut self, stdio: Stdio, spans: &mut Vec<Span>) -> Result<Container, RuntimeError> {
        let rootfs = if self.overlay {
            let pair = self.dir.path().join("pair");
            for name in ["upper", "work"] {
                fs::create_dir_all(pair.join(name)).unwrap();
            }
            let overlay = berth_runtime::OverlayRootfs {
                lowers: vec![self.rootfs()],
                upper: Some(pair.join("upper")),
                work: Some(pair.join("work")),
                is_volatile: true,
            };
            Rootfs::Overlay(overlay, berth_runtime::LayerOwners::Mapped)
        } else {
            Rootfs::Bundle
        };
        let options = CreateOptions {
            id: self.id.parse().unwrap(),
            bundle: self.dir.path().to_owned(),
            rootfs,
            stdio,
            seccomp_program: None,
            tuning: std::mem::take(&mut self.tuning),
        };
        Container::create(&self.spec(), options, spans)
    }

    pub(crate) fn start(&mut self) -> Running {
        let (stdio, output) = pipes();
        let mut spans = Vec::new();
        let mut container =
            self.create_with(stdio, &mut spans).unwrap_or_else(|e| panic!("{}", berth_types::report(&e)));
        container.start(&mut spans).unwrap_or_else(|e| panic!("{}", berth_types::report(&e)));
        Running { container, output, spans }
    }

    /// Runs to the end; what it printed on both streams, and its exit code.
    pub(crate) fn run(&mut self) -> (i32, String) {
        self.start().finish()
    }

    pub(crate) fn output(&mut self) -> String {
        let (code, text) = self.run();
        assert_eq!(code, 0, "{text}");
        text
    }
}

/// A started container and the reading end of its output.
pub(crate) struct Running {
    pub(crate) container: Container,
    pub(crate) output: OwnedFd,
    pub(crate) spans: Vec<Span>,
}

impl Running {
    pub(crate) fn finish(self) -> (i32, String) {
        let text = read_all(self.output);
        let code = wait(&self.container.init);
        self.container.delete().unwrap_or_else(|e| panic!("{}", berth_types::report(&e)));
        (code, text)
    }

    pub(crate) fn exec(&self, process: &Value) -> (i32, String) {
        let (stdio, output) = pipes();
        let process = serde_json::from_value(process.clone()).unwrap();
        let process = self
            .container
            .exec(&process, stdio, &mut Vec::new())
            .unwrap_or_else(|e| panic!("{}", berth_types::report(&e)));
        let text = read_all(output);
        (wait(&process), text)
    }

    /// Waits until a line with this text was printed.
    pub(crate) fn await_line(&self, wanted: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut text = String::new();
        while !text.contains(wanted) {
            assert!(Instant::now() < deadline, "waited for {wanted:?}, got {text:?}");
            wait_readable(self.output.as_fd());
            let mut buffer = [0; 4096];
            let length = rustix::io::read(&self.output, &mut buffer).unwrap();
            assert!(length > 0, "ended before {wanted:?}: {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    }
}

pub(crate) fn process_value(args: &[&str]) -> Value {
    json!({
        "args": args, "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"],
        "user": {"uid": 0, "gid": 0},
    })
}

/// stdin is /dev/null, stdout and stderr are one pipe.
pub(crate) fn pipes() -> (Stdio, OwnedFd) {
    use rustix::fs::{Mode, OFlags};
    let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let stdio = Stdio::Fds { stdin, stdout: write.try_clone().unwrap(), stderr: write };
    (stdio, output)
}

fn wait_readable(fd: std::os::fd::BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "nothing came in 20 s");
}

pub(crate) fn read_all(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    fs::File::from(fd).read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code as a shell would put it.
pub(crate) fn wait(process: &Process) -> i32 {
    wait_readable(process.pidfd.as_fd());
    let status = rustix::process::waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

pub(crate) fn nanoseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

fn new_id() -> String {
    format!("rt-{}-{:x}", std::process::id(), nanoseconds())
}

fn default_spec(id: &str) -> Value {
    let capabilities =
        json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN"]);
    let namespaces: Vec<Value> =
        ["mount", "pid", "ipc", "uts", "network", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "berth-test",
        "process": {
            "args": ["true"], "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/berth-test/{id}"),
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
