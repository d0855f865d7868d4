//! Containers on a host with systemd and cgroup v2 alone, as the virtual machine of `run.sh` is one: bundles, and what they print.
//!
//! The binaries under test are in `/usr/local/bin`, where `guest.sh` puts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest that anything here may take; UML and an emulated processor are slow, and the machine below may be busy.
pub const WAIT: Duration = Duration::from_secs(60);

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

pub const DRIVERS: [Driver; 2] = [Driver::Cgroupfs, Driver::Systemd];

/// A bundle of busybox and a container made from it; killed and removed when dropped.
#[derive(Debug)]
pub struct Bundle {
    directory: tempfile::TempDir,
    driver: Driver,
    pub name: String,
}

impl Bundle {
    /// A bundle whose program is a shell with `script`, with these resources.
    pub fn new(driver: Driver, name: &str, script: &str, resources: Value) -> Self {
        let directory = tempfile::Builder::new().prefix("vm-").tempdir_in("/var/tmp").expect("temporary directory");
        let rootfs = directory.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).expect("rootfs");
        }
        fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).expect("busybox");
        for applet in ["sh", "sleep", "cat", "dd", "ls", "mkdir", "sync", "head", "true", "tail", "id"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("applet");
        }
        let bundle = Self { directory, driver, name: format!("{name}-{driver:?}").to_lowercase() };
        bundle.runb(&["spec", "--bundle", bundle.path()]).ok();
        bundle.edit(|config| {
            config["process"]["args"] = json!(["sh", "-c", script]);
            config["process"]["terminal"] = json!(false);
            config["root"]["readonly"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(match driver {
                Driver::Cgroupfs => format!("/berth-vm/{}", bundle.name),
                Driver::Systemd => format!("berthvm.slice:berth:{}", bundle.name),
            });
            config["linux"]["resources"] = resources;
        });
        bundle
    }

    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.directory.path().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).expect("config.json")).expect("JSON");
        change(&mut config);
        fs::write(path, config.to_string()).expect("config.json");
    }

    /// Lets it use the machine's own programs.
    pub fn bind_usr(&self) {
        for library in ["lib", "lib64"] {
            let link = self.directory.path().join("rootfs").join(library);
            std::os::unix::fs::symlink(format!("usr/{library}"), link).expect("link");
        }
        self.edit(|config| {
            let usr = json!({"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]});
            config["mounts"].as_array_mut().expect("mounts").push(usr);
        });
    }

    pub fn path(&self) -> &str {
        self.directory.path().to_str().expect("a text")
    }

    pub fn runb(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("/usr/local/bin/runb");
        command.arg("--root").arg(self.directory.path().join("state"));
        if self.driver == Driver::Systemd {
            command.arg("--systemd-cgroup");
        }
        Outcome::of(command.args(arguments).stdin(Stdio::null()))
    }

    /// Runs it to its end.
    pub fn run(&self) -> Outcome {
        self.runb(&["run", "--bundle", self.path(), &self.name])
    }

    /// Lets it run in the background; its output goes nowhere.
    pub fn start(&self) {
        let mut command = Command::new("/usr/local/bin/runb");
        command.arg("--root").arg(self.directory.path().join("state"));
        if self.driver == Driver::Systemd {
            command.arg("--systemd-cgroup");
        }
        command.args(["run", "--detach", "--bundle", self.path(), &self.name]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("runb");
        assert!(status.success(), "{status}");
    }

    /// The cgroup's directory.
    pub fn cgroup(&self) -> PathBuf {
        match self.driver {
            Driver::Cgroupfs => Path::new("/sys/fs/cgroup/berth-vm").join(&self.name),
            Driver::Systemd => Path::new("/sys/fs/cgroup/berthvm.slice").join(format!("berth-{}.scope", self.name)),
        }
    }

    /// A file of the cgroup.
    pub fn read(&self, file: &str) -> String {
        let path = self.cgroup().join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display())).trim().to_owned()
    }

    /// A number out of a file of lines `key number`.
    pub fn count(&self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
        value.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
    }

    pub fn pids(&self) -> usize {
        self.read("cgroup.procs").lines().filter(|line| line.parse::<u32>().is_ok()).count()
    }

    /// The device of the disk the bundle is on, as `major:minor` of the whole disk.
    pub fn disk(&self) -> (u32, u32) {
        let device = fs::metadata(self.path()).map(|data| std::os::unix::fs::MetadataExt::dev(&data)).expect("stat");
        (rustix::fs::major(device), rustix::fs::minor(device))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.runb(&["delete", "--force", &self.name]);
        if !std::thread::panicking() {
            assert!(!self.cgroup().exists(), "{} is left", self.cgroup().display());
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the command can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Self { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Its output, when it succeeded and complained of nothing.
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }
}

/// Waits for a condition; nothing is decided by time, waiting is only given up.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT, "not within {WAIT:?}: {what}");
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        rustix::event::poll(&mut [], Some(&moment)).ok();
    }
}
