//! A user's own containers under his own systemd, which delegates a part of cgroup v2 to him: `runb --systemd-cgroup` as uid 1000, whom
//! `guest.sh` makes, from the bundle that `runb spec --rootless` writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_vm_tests::{Outcome, until};
use serde_json::{Value, json};

const USER: u32 = 1000;

struct Rootless {
    directory: tempfile::TempDir,
    name: &'static str,
}

impl Rootless {
    fn new(name: &'static str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let directory = tempfile::Builder::new().prefix("rootless-").tempdir_in("/var/tmp").unwrap();
        let rootfs = directory.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "cat", "id", "tr"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let owner = format!("{USER}:{USER}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(directory.path()).status().unwrap().success());
        let container = Self { directory, name };
        container.runb(&["spec", "--rootless", "--bundle", container.path()]).ok();
        let file = container.directory.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("user.slice:berth:{name}"));
        change(&mut config);
        fs::write(file, config.to_string()).unwrap();
        container
    }

    fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// The runtime as the user, in his session's surroundings.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"]);
        command.args(["XDG_RUNTIME_DIR=/run/user/1000", "/usr/local/bin/runb", "--systemd-cgroup", "--root"]);
        command.arg(self.directory.path().join("state")).args(words).stdin(Stdio::null());
        command
    }

    fn runb(&self, words: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(words))
    }

    /// Where systemd put it.
    fn group(&self) -> PathBuf {
        let slice = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice";
        Path::new(slice).join(format!("berth-{}.scope", self.name))
    }

    fn value(&self, file: &str) -> String {
        fs::read_to_string(self.group().join(file)).unwrap_or_else(|error| error.to_string()).trim().to_owned()
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let _gone = self.command(&["delete", "--force", self.name]).stderr(Stdio::null()).status();
        if !std::thread::panicking() {
            assert!(!self.group().exists(), "{} is left", self.group().display());
        }
    }
}

/// S-045: limits of a user's container hold, its whole life in a scope of his own systemd, and nothing of it stays.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s045_a_users_container_in_his_own_delegated_group() {
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
    let container = Rootless::new("life", "exec sleep 1000", |config| config["linux"]["resources"] = limits);
    let words = ["run", "--detach", "--bundle", container.path(), container.name];
    let mut run = container.command(&words);
    assert!(run.stdout(Stdio::null()).status().unwrap().success());
    let state: Value = serde_json::from_str(&container.runb(&["state", container.name]).ok()).unwrap();
    assert_eq!(state["status"], "running");
    let own = container.group().strip_prefix("/sys/fs/cgroup").unwrap().display().to_string();
    let cgroup = format!("0::/{own}");
    assert_eq!(fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap().trim(), cgroup);
    assert_eq!((container.value("memory.max").as_str(), container.value("pids.max").as_str()), ("67108864", "20"));
    let said = container.runb(&["exec", container.name, "sh", "-c", "id -u; cat /proc/self/cgroup"]).ok();
    // Seen from a cgroup namespace of its own, or from the user's.
    assert!(said == "0\n0::/" || said == format!("0\n{cgroup}"), "{said}");
    container.runb(&["update", "--pids-limit", "30", container.name]).ok();
    assert_eq!(container.value("pids.max"), "30");
    container.runb(&["pause", container.name]).ok();
    assert_eq!(container.value("cgroup.freeze"), "1");
    container.runb(&["resume", container.name]).ok();
    assert_eq!(container.value("cgroup.freeze"), "0");
    let stats = container.runb(&["events", "--stats", container.name]).ok();
    assert!(stats.contains("\"pids\""), "{stats}");
    container.runb(&["kill", container.name, "KILL"]).ok();
    until("it is stopped", || container.runb(&["state", container.name]).stdout.contains("\"stopped\""));
    container.runb(&["delete", container.name]).ok();
    until("its scope is gone", || !container.group().exists());
}

/// S-045: with the ids that are set aside for the user, by newuidmap(1).
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s045_a_users_container_with_a_range_of_ids() {
    let map =
        json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 65_535}]);
    let container = Rootless::new("ids", "id -u; tr -s ' ' </proc/self/uid_map", |config| {
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"] = json!({"uid": 33, "gid": 34});
    });
    let said = container.runb(&["run", "--bundle", container.path(), container.name]).ok();
    assert_eq!(said, "33\n 0 1000 1\n 1 100000 65535");
}
