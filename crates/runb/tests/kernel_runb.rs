//! The command against the real kernel: every verb once, with its refusals. Nothing is mounted on the host.
#![expect(clippy::unwrap_used, reason = "a test, and what only tests call")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

struct Place {
    dir: tempfile::TempDir,
    name: String,
}

fn peer(path: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    #[expect(clippy::disallowed_methods, reason = "where the peers are is the environment's to say")]
    let found = std::env::var("BERTH_PEERS").map_or(default, PathBuf::from).join(path);
    assert!(found.exists(), "{} is missing: run tests/fetch-peers.sh", found.display());
    found
}

impl Place {
    fn new(name: &str, script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "etc"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::copy(peer("root/bin/busybox"), rootfs.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "id", "cat", "tty"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let place = Self { dir, name: format!("runb-{name}-{}", std::process::id()) };
        assert!(place.runb(&["spec", "--bundle", place.bundle()]).status.success());
        place.edit(|config| {
            config["process"]["args"] = json!(["sh", "-c", script]);
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/berth-test/{}", place.name));
        });
        place
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.path().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    fn bundle(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runb"));
        command.arg("--root").arg(self.dir.path().join("root")).args(arguments).stdin(Stdio::null());
        command
    }

    fn runb(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.runb(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Code and message of one that must fail.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.runb(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn create(&self) -> String {
        let out = self.dir.path().join("out");
        let file = fs::File::create(&out).unwrap();
        let pid_file = self.dir.path().join("pid");
        let mut command = self.command(&["create", "--bundle", self.bundle(), "--pid-file"]);
        let status = command.arg(&pid_file).arg(&self.name).stdout(file.try_clone().unwrap()).stderr(file).status();
        assert!(status.unwrap().success(), "{}", fs::read_to_string(out).unwrap());
        fs::read_to_string(pid_file).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.name])).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _done = self.command(&["delete", "--force", &self.name]).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_whole_life() {
    let place = Place::new("life", "echo started; sleep 60");
    let id = place.name.clone();
    let pid = place.create();
    let state = place.state();
    assert_eq!((state["status"].as_str(), state["pid"].to_string()), (Some("created"), pid.clone()));
    assert_eq!(
        place.refused(&["create", "--bundle", place.bundle(), &id]).1,
        format!("runb: container with given ID already exists: {id}\n")
    );
    place.ok(&["start", &id]);
    assert_eq!(place.state()["status"], "running");
    let message = "runb: cannot start an already running container\n".to_owned();
    assert_eq!(place.refused(&["start", &id]), (1, message));
    assert!(place.ok(&["list"]).lines().any(|line| line.starts_with(&id)));
    assert!(place.ok(&["ps", &id]).lines().count() >= 2);
    assert!(place.ok(&["ps", "--format", "json", &id]).contains(&pid));
    place.ok(&["pause", &id]);
    assert_eq!(place.state()["status"], "paused");
    let (code, message) = place.refused(&["exec", &id, "id"]);
    let expected = "runb: exec failed: cannot exec in a paused container (use --ignore-paused to override)\n";
    assert_eq!((code, message.as_str()), (255, expected));
    place.ok(&["resume", &id]);
    place.ok(&["update", "--pids-limit", "33", &id]);
    let stats: Value = serde_json::from_str(&place.ok(&["events", "--stats", &id])).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 33);
    assert_eq!(place.refused(&["delete", &id]).0, 1);
    place.ok(&["kill", &id, "KILL"]);
    place.ok(&["delete", "--force", &id]);
    assert_eq!(place.refused(&["state", &id]).1, format!("runb: container does not exist: {id}\n"));
    assert_eq!(fs::read_to_string(place.dir.path().join("out")).unwrap(), "started\n");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!hierarchy.unwrap().path().join("berth-test").join(&id).exists());
    }
}

#[test]
fn exec_takes_its_flags() {
    let place = Place::new("exec", "sleep 60");
    let id = place.name.clone();
    place.create();
    place.ok(&["start", &id]);
    assert_eq!(
        place.ok(&["exec", "-e", "A=b", "-u", "5:6", "--cwd", "/etc", &id, "sh", "-c", "id; echo $A $PWD"]),
        "uid=5 gid=6\nb /etc\n"
    );
    assert_eq!(place.refused(&["exec", &id, "sh", "-c", "exit 9"]).0, 9);
    assert_eq!(place.refused(&["exec", &id, "no-such"]).0, 255);
    assert_eq!(place.refused(&["exec", &id, "/etc"]).0, 255);
    // CVE-2026-30892: a user is what it says, or refused.
    assert_eq!(place.refused(&["exec", "-u", "4294967296", &id, "id"]).0, 255);
}

#[test]
fn run_gives_the_code_and_leaves_nothing() {
    let place = Place::new("run", "echo out; exit 5");
    let output = place.runb(&["run", "--bundle", place.bundle(), &place.name]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"out\n".as_slice()));
    assert_eq!(place.ok(&["list", "--quiet"]), "");
}

#[test]
fn create_reports_what_init_reports() {
    let place = Place::new("bad", "");
    place.edit(|config| config["process"]["args"] = json!(["not-there"]));
    let (code, message) = place.refused(&["create", "--bundle", place.bundle(), &place.name]);
    assert_eq!(code, 1);
    assert!(message.contains("exec: \"not-there\": executable file not found in $PATH"), "{message}");
}

#[test]
fn what_cannot_be_done_says_so() {
    let place = Place::new("cannot", "");
    // The bundle's path is the other driver's.
    let (code, message) = place.refused(&["--systemd-cgroup", "run", "--bundle", place.bundle(), "x"]);
    assert!(code == 1 && message.contains("linux.cgroupsPath is not valid"), "{message}");
    let (code, message) = place.refused(&["restore", "--lazy-pages", "--bundle", place.bundle(), "x"]);
    assert_eq!((code, message.as_str()), (1, "runb: lazy migration (--lazy-pages) is not implemented yet\n"));
    let log = place.dir.path().join("log");
    let output = place.runb(&["--log", log.to_str().unwrap(), "--log-format", "json", "start", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!("container does not exist: nobody")));
}

fn copy_below(rootfs: &Path, file: &Path) {
    let target = rootfs.join(file.strip_prefix("/").unwrap());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(file, target).unwrap();
}

/// CVE-2019-5736: a container gets the runtime to execute its own file, finds that file by `/proc/PID/exe`, and writes to it while the
/// process lives and after it has ended. The runtime runs alone here, from an ordinary file of the same root user.
#[test]
fn cve_2019_5736_the_runtime_cannot_be_overwritten() {
    let script = "mkfifo /b/config.json; echo up; while true; do for p in /proc/[0-9]*; do \
        e=$(readlink $p/exe); case $e in /bin/busybox|'') continue;; esac; \
        (echo x > $p/exe) 2>&1 | sed 's/.*: //'; exec 3< $p/exe; kill -9 ${p#/proc/}; \
        while [ -e $p/exe ] && [ -n \"$(readlink $p/exe)\" ]; do :; done; \
        (echo x > /proc/self/fd/3) 2>&1 | sed 's/.*: //'; exit; done; done";
    let place = Place::new("own-file", script);
    let rootfs = place.dir.path().join("rootfs");
    for applet in ["mkfifo", "readlink", "sed", "kill"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    std::os::unix::fs::symlink("/proc/self/exe", rootfs.join("bin/me")).unwrap();
    fs::create_dir(rootfs.join("b")).unwrap();
    // A build for tests is linked with libraries, which the container must have for the runtime to start there at all.
    let linked = Command::new("ldd").arg(env!("CARGO_BIN_EXE_runb")).output().unwrap();
    for word in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        copy_below(&rootfs, Path::new(word));
    }
    let own = place.dir.path().join("bin/runb");
    fs::create_dir(own.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_runb"), &own).unwrap();
    let before = fs::read(&own).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&own);
        command.arg("--root").arg(place.dir.path().join("root")).args(arguments).stdin(Stdio::null());
        command
    };
    place.edit(|config| config["root"]["readonly"] = json!(false));
    let out = place.dir.path().join("out");
    let file = fs::File::create(&out).unwrap();
    let status = command(&["run", "-d", "-b", place.bundle(), &place.name])
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status();
    assert!(status.unwrap().success(), "{}", fs::read_to_string(&out).unwrap());
    let wait_for = |text: &str| {
        for _ in 0..2000 {
            let found = fs::read_to_string(&out).unwrap();
            if found.contains(text) {
                return found;
            }
            std::thread::yield_now();
            pause();
        }
        panic!("waited for {text:?}: {:?}", fs::read_to_string(&out).unwrap());
    };
    wait_for("up\n");
    // It waits for its config.json, which is a pipe nobody writes to.
    let added = command(&["exec", &place.name, "/bin/me", "--root", "/s", "create", "-b", "/b", "x"]).output().unwrap();
    assert!(!added.status.success());
    let text = wait_for("up\nRead-only file system\nRead-only file system\n");
    assert_eq!(text, "up\nRead-only file system\nRead-only file system\n");
    assert!(before == fs::read(&own).unwrap(), "the runtime was overwritten");
    place.ok(&["delete", "--force", &place.name]);
}

/// sd_notify(3): what the container says on its own socket reaches the one in NOTIFY_SOCKET, with its process as the main one.
#[test]
fn readiness_is_passed_on() {
    let say = "use Socket; socket(my $s, PF_UNIX, SOCK_DGRAM, 0); \
        send($s, 'STATUS=almost', 0, sockaddr_un($ENV{NOTIFY_SOCKET})); \
        send($s, \"READY=1\\nSTATUS=up\", 0, sockaddr_un($ENV{NOTIFY_SOCKET})); sleep 60";
    for way in ["create and start", "run detached", "run in the foreground"] {
        let place = Place::new("notify", "");
        for name in ["lib", "lib64", "usr"] {
            fs::create_dir_all(place.dir.path().join("rootfs").join(name)).unwrap();
        }
        place.edit(|config| {
            config["process"]["args"] = json!(["/usr/bin/perl", "-e", say]);
            for name in ["/usr", "/lib", "/lib64"] {
                let bind = json!({"destination": name, "type": "bind", "source": name, "options": ["rbind", "ro"]});
                config["mounts"].as_array_mut().unwrap().push(bind);
            }
        });
        let path = place.dir.path().join("host.sock");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let command = |arguments: &[&str]| {
            let mut command = place.command(arguments);
            command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null());
            command
        };
        let mut foreground = None;
        match way {
            "create and start" => {
                assert!(command(&["create", "--bundle", place.bundle(), &place.name]).status().unwrap().success());
                assert!(command(&["start", &place.name]).status().unwrap().success());
            }
            "run detached" => {
                assert!(command(&["run", "-d", "--bundle", place.bundle(), &place.name]).status().unwrap().success());
            }
            _ => foreground = Some(command(&["run", "--bundle", place.bundle(), &place.name]).spawn().unwrap()),
        }
        let mut buffer = [0; 512];
        let mut message = || {
            let length = socket.recv(&mut buffer).expect(way);
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let first = message();
        assert!(first.starts_with("STATUS=almost\nMAINPID="), "{way}: {first}");
        let pid = first.trim().rsplit('=').next().unwrap().to_owned();
        assert_eq!(message(), format!("READY=1\nSTATUS=up\nMAINPID={pid}\n"), "{way}");
        let state: Value = serde_json::from_str(&place.ok(&["state", &place.name])).unwrap();
        assert_eq!(state["pid"].to_string(), pid, "{way}");
        place.ok(&["delete", "--force", &place.name]);
        if let Some(mut child) = foreground {
            child.wait().unwrap();
        }
    }
}

/// 10 ms without a CPU.
fn pause() {
    let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let _interrupted = rustix::event::poll(&mut [], Some(&pause));
}
