//! A container of the runtime under test: its bundle, its commands, and its end.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use berth_testkit::{Output, wait_until};
use serde_json::{Value, json};

use crate::runtime::Runtime;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Applets that scripts of the cases use.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cut", "dd", "dirname", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "ls",
    "mkdir", "mknod", "mount", "ps", "pwd", "readlink", "rm", "sh", "sleep", "sort", "stat", "stty", "tail", "touch",
    "tr", "true", "tty", "umask", "uname", "wc",
];

#[derive(Debug)]
pub struct Container<'r> {
    pub runtime: &'r Runtime,
    pub id: String,
    pub directory: PathBuf,
    pub config: Value,
}

fn test_root() -> PathBuf {
    std::env::var_os("BERTH_TEST_ROOT").map_or_else(|| std::env::temp_dir().join("berth-test"), PathBuf::from)
}

impl<'r> Container<'r> {
    pub fn new(runtime: &'r Runtime) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("conf-{}-{number}", std::process::id());
        let directory = test_root().join(&id);
        let rootfs = directory.join("bundle/rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "data"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        let busybox = rootfs.join("bin/busybox");
        berth_testkit::peers::copy_program(&berth_testkit::peers::busybox(), &busybox);
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
            .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
        let config = plain_config(&id);
        Self { runtime, id, directory, config }
    }

    /// With a script for `/bin/sh` as its program.
    pub fn with_script(runtime: &'r Runtime, script: &str) -> Self {
        let mut container = Self::new(runtime);
        container.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        container
    }

    /// Another one with the same runtime and state directory as `other`, for cases about several.
    pub fn beside(other: &Container<'r>, script: &str) -> Self {
        let mut container = Self::with_script(other.runtime, script);
        fs::create_dir_all(other.directory.join("root")).unwrap();
        std::os::unix::fs::symlink(other.directory.join("root"), container.directory.join("root")).unwrap();
        container.config["linux"]["cgroupsPath"] = json!(format!("/berth-test/{}", container.id));
        container
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { &mut self.config } else { self.config.pointer_mut(parent).unwrap() };
        parent[key] = value;
        self
    }

    /// Appends to a list of the configuration.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        if self.config.pointer(pointer).is_none() {
            self.set(pointer, json!([]));
        }
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        self.push("/mounts", json!({"destination": destination, "type": kind, "source": source, "options": options}))
    }

    pub fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// A folder of the host beside the bundle.
    pub fn host_folder(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn write_config(&self) {
        fs::write(self.bundle().join("config.json"), self.config.to_string()).unwrap();
    }

    /// The runtime with this container's state directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg("--root").arg(self.directory.join("root")).args(words);
        command
    }

    /// A command that ends by itself.
    pub fn call(&self, words: &[&str]) -> Output {
        output(self.command(words))
    }

    /// One about this container: its id is the last word.
    pub fn verb(&self, words: &[&str]) -> Output {
        self.call(&[words, &[&self.id]].concat())
    }

    /// `pause` that goes well. On a busy machine runc gives up to freeze a v1 group after some attempts.
    #[track_caller]
    pub fn pause(&self) {
        let output = wait_until("it is paused", || {
            Some(self.verb(&["pause"])).filter(|output| !output.stderr.contains("unable to freeze"))
        });
        output.ok();
    }

    /// Writes the bundle and runs it in the foreground.
    pub fn run(&self) -> Output {
        self.write_config();
        output(self.run_command(&[]))
    }

    /// `run` with further flags, to be extended.
    pub fn run_command(&self, flags: &[&str]) -> Command {
        let bundle = self.bundle();
        let mut command = self.command(&["run", "--bundle", bundle.to_str().unwrap()]);
        command.args(flags).arg(&self.id);
        command
    }

    /// Its standard output and errors when it is created.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory.join("out")).unwrap_or_default()
    }

    /// Creates it, with its output in a file.
    #[track_caller]
    pub fn create(&self) -> u32 {
        let output = self.try_create(&[]);
        assert_eq!(output.code, 0, "create failed: {}", output.stderr);
        fs::read_to_string(self.directory.join("pid")).unwrap().parse().unwrap()
    }

    /// Creates it with further flags; standard error is what was said.
    pub fn try_create(&self, flags: &[&str]) -> Output {
        self.write_config();
        let file = fs::File::create(self.directory.join("out")).unwrap();
        let (bundle, pid) = (self.bundle(), self.directory.join("pid"));
        let mut command = self.command(&["create", "--bundle", bundle.to_str().unwrap(), "--pid-file"]);
        command.arg(&pid).args(flags).arg(&self.id);
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        Output { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: self.said() }
    }

    #[track_caller]
    pub fn start(&self) {
        self.verb(&["start"]).ok();
    }

    #[track_caller]
    pub fn create_and_start(&self) -> u32 {
        let pid = self.create();
        self.start();
        pid
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(self.verb(&["state"]).ok()).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn wait_for_status(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.id), || (self.status() == status).then_some(()));
    }

    /// Until the program has said this much.
    pub fn wait_for_said(&self, text: &str) {
        wait_until(&format!("{} says {text:?}", self.id), || self.said().contains(text).then_some(()));
    }

    /// `exec` with words after the id.
    pub fn exec(&self, flags: &[&str], words: &[&str]) -> Output {
        self.call(&[&["exec"], flags, &[&self.id], words].concat())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let quiet = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _gone = quiet(self.command(&["delete", "--force", &self.id]));
        if std::thread::panicking() {
            eprintln!("{} {}: said {:?}", self.runtime.path().display(), self.id, self.said());
        }
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

fn output(mut command: Command) -> Output {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: done.status.code().unwrap_or(-1), stdout: text(&done.stdout), stderr: text(&done.stderr) }
}

/// What every runtime of the specification's version 1.0 can run.
fn plain_config(id: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "conformance",
        "process": {
            "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/berth-test/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}
