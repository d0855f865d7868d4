//! Debian's engines as private daemons below the test root, told to use the runtime under test.
//!
//! Each lives in a mount namespace of its own with a fresh `/run`, so that what they write to fixed places is theirs alone and ends
//! with the namespace. The runtime they get is a script that notes its arguments and becomes the runtime: proof of who ran.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use berth_testkit::peers::peer;
use berth_testkit::{Image, Output, wait_until};

use crate::runtime::Runtime;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Without the v2 hierarchy of a hybrid host, which containerd 1.6 cannot measure beside v1.
const HOLD: &str = "mount -t tmpfs tmpfs /run && { [ ! -d /sys/fs/cgroup/unified ] || umount -l /sys/fs/cgroup/unified; } \
                    && echo ready && exec sleep 1000000";

#[derive(Debug)]
pub struct Place {
    pub directory: PathBuf,
    holder: Child,
    daemons: Vec<Child>,
}

impl Place {
    pub fn new(runtime: &Runtime) -> Self {
        let root =
            std::env::var_os("BERTH_TEST_ROOT").map_or_else(|| std::env::temp_dir().join("berth-test"), PathBuf::from);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = root.join(format!("engine-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{}/calls\nexec {} \"$@\"\n",
            directory.display(),
            runtime.path().display()
        );
        let wrapper = directory.join("runtime");
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("busybox.tar"), Image::busybox().docker_archive()).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c"])
            .arg(HOLD)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self { directory, holder, daemons: Vec::new() }
    }

    pub fn runtime(&self) -> String {
        self.directory.join("runtime").display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Parent of the engine's cgroups.
    pub fn cgroup_parent(&self) -> String {
        format!("/berth-test/{}", self.directory.file_name().unwrap().to_str().unwrap())
    }

    /// A peer's program inside the namespace.
    pub fn command(&self, program: &str) -> Command {
        let root = peer("usr/bin/ctr").ancestors().nth(3).unwrap().to_owned();
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").arg(peer(program));
        let bins: Vec<String> =
            ["usr/bin", "usr/sbin", "sbin", "bin"].iter().map(|d| root.join(d).display().to_string()).collect();
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bins.join(":")));
        command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu")).env("HOME", &self.directory);
        command.stdin(Stdio::null());
        command
    }

    pub fn daemon(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.directory.join("daemon.log")).unwrap();
        self.daemons.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// The verbs the engine has called the runtime with.
    pub fn calls(&self) -> Vec<String> {
        const VERBS: [&str; 12] =
            ["create", "start", "run", "exec", "kill", "delete", "state", "pause", "resume", "update", "ps", "events"];
        let calls = fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        calls.split_whitespace().filter(|word| VERBS.contains(word)).map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn assert_called(&self, verbs: &[&str]) {
        let calls = self.calls();
        let missing: Vec<&&str> = verbs.iter().filter(|verb| !calls.iter().any(|call| call == *verb)).collect();
        assert!(missing.is_empty(), "never called: {missing:?}; called were {calls:?}");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the engine ---\n{}", self.log());
            eprintln!(
                "--- calls of the runtime ---\n{}",
                fs::read_to_string(self.directory.join("calls")).unwrap_or_default()
            );
        }
        for daemon in self.daemons.iter_mut().rev() {
            let pid = rustix::process::Pid::from_child(daemon);
            // nsenter became the daemon.
            if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
                let _status = daemon.wait();
            }
        }
        let _ended = self.holder.kill();
        let _status = self.holder.wait();
        let name = self.directory.file_name().unwrap().to_owned();
        let remove_all = || {
            let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
            for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
                remove_groups(&hierarchy.join("berth-test").join(&name));
            }
            crate::engine::left_of(&name.to_string_lossy())
        };
        let left = remove_all();
        let removed = fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            removed.unwrap();
            // A monitor that is ending keeps its group for a moment.
            wait_until(&format!("these are gone: {left:?}"), || remove_all().is_empty().then_some(()));
        }
    }
}

/// The engine's own groups, which it leaves empty: podman has one for its monitors.
fn remove_groups(path: &std::path::Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _not_there = fs::remove_dir(path);
}

/// Cgroups and processes that name an engine's directory.
fn left_of(name: &str) -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let path = entry.path().join("berth-test").join(name);
        if path.exists() {
            left.push(path.display().to_string());
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            left.push(format!("process {} {line}", entry.file_name().to_string_lossy()));
        }
    }
    left
}

/// Runs a client to its end.
pub fn output(mut command: Command) -> Output {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: done.status.code().unwrap_or(-1), stdout: text(&done.stdout), stderr: text(&done.stderr) }
}

/// Runs a client on a terminal of its own; what the terminal showed.
pub fn on_terminal(mut command: Command) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let mut master = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap());
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    // It ends with an error once the last one has closed the terminal.
    let _hung_up = std::io::Read::read_to_end(&mut master, &mut shown);
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).replace('\r', "")
}

/// Waits until a client's command succeeds.
pub fn wait_for(what: &str, mut command: impl FnMut() -> Command) {
    wait_until(what, || (output(command()).code == 0).then_some(()));
}
