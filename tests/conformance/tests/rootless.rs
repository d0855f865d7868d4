//! Containers of an ordinary user, by `runb`: with nothing but his own id, and with a range of subordinate ids that newuidmap and
//! newgidmap give. Each runs in a mount namespace of its own, where /etc/subuid is ours and the two programs are setuid root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_conformance::Runtime;
use berth_testkit::{Output, wait_until};
use serde_json::{Value, json};

const USER: u32 = 65_534;

struct Place {
    directory: PathBuf,
    runtime: Runtime,
}

impl Place {
    fn new(name: &str) -> Self {
        let root =
            std::env::var_os("BERTH_TEST_ROOT").map_or_else(|| std::env::temp_dir().join("berth-test"), PathBuf::from);
        let directory = root.join(format!("rootless-{name}-{}", std::process::id()));
        let rootfs = directory.join("bundle/rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::create_dir_all(directory.join("helpers")).unwrap();
        fs::create_dir_all(directory.join("run")).unwrap();
        fs::copy(berth_testkit::peers::busybox(), rootfs.join("bin/busybox")).unwrap();
        for applet in ["sh", "id", "cat", "sleep", "touch", "stat", "tr", "ls", "tty", "echo"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let done = Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(&directory).status().unwrap();
        assert!(done.success());
        for helper in ["newuidmap", "newgidmap"] {
            let copy = directory.join("helpers").join(helper);
            fs::copy(berth_testkit::peers::peer(&format!("usr/bin/{helper}")), &copy).unwrap();
            chown(&copy, Some(0), Some(0)).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
        }
        fs::write(directory.join("subids"), format!("{USER}:200000:65536\nnobody:200000:65536\n")).unwrap();
        let place = Self { directory, runtime: Runtime::tested() };
        place.call(&["spec", "--rootless", "--bundle", place.path("bundle").to_str().unwrap()]).ok();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The runtime as the user, with `helpers` first in its path and the subordinate ids in force.
    fn command(&self, words: &[&str]) -> Command {
        let script = r#"for f in /etc/subuid /etc/subgid; do [ -e $f ] && mount --bind "$0/subids" $f; done
            d=$0; shift 0; PATH=$d/helpers:/usr/bin:/bin XDG_RUNTIME_DIR=$d/run exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", script]).arg(&self.directory);
        command.arg(self.runtime.path()).args(words).stdin(Stdio::null());
        command
    }

    fn call(&self, words: &[&str]) -> Output {
        let done = self.command(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: done.status.code().unwrap_or(-1), stdout: text(&done.stdout), stderr: text(&done.stderr) }
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.path("bundle/config.json");
        let mut config = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut config);
        fs::write(file, config.to_string()).unwrap();
    }

    fn script(&self, script: &str) {
        self.edit(|config| {
            config["process"]["args"] = json!(["sh", "-c", script]);
            config["process"]["terminal"] = json!(false);
            config["root"]["readonly"] = json!(false);
        });
    }

    fn run(&self) -> Output {
        self.call(&["run", "--bundle", self.path("bundle").to_str().unwrap(), "one"])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = self.command(&["delete", "--force", "one"]).stderr(Stdio::null()).status();
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn with_one_id() {
    let place = Place::new("one");
    place.script("id -u; id -g; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups; touch /made; ls /dev/null /sys/class/net/lo -d; exit 4");
    let output = place.run();
    let expected = "0\n0\n 0 65534 1\ndeny\n/dev/null\n/sys/class/net/lo\n";
    assert_eq!((output.code, output.stdout.as_str()), (4, expected), "{output:?}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(place.path("bundle/rootfs/made")).unwrap());
    assert_eq!(owner, USER);
}

#[test]
fn a_whole_life() {
    let place = Place::new("life");
    place.script("echo up; sleep 60");
    let out = fs::File::create(place.path("out")).unwrap();
    let bundle = place.path("bundle");
    let words = ["create", "--bundle", bundle.to_str().unwrap(), "one"];
    let status = place.command(&words).stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(place.path("out")).unwrap());
    let state = || -> Value { serde_json::from_str(place.call(&["state", "one"]).ok()).unwrap() };
    assert_eq!(state()["status"], "created");
    place.call(&["start", "one"]).ok();
    wait_until("it runs", || fs::read_to_string(place.path("out")).unwrap().contains("up").then_some(()));
    assert_eq!(state()["status"], "running");
    let exec = place.call(&["exec", "one", "sh", "-c", "id -u; echo $$; exit 3"]);
    assert_eq!(exec.code, 3, "{exec:?}");
    assert!(exec.stdout.starts_with("0\n") && exec.stdout.trim().lines().nth(1).unwrap().parse::<u32>().unwrap() < 100);
    assert!(place.call(&["list"]).ok().contains("running"));
    place.call(&["kill", "one", "KILL"]).ok();
    wait_until("it is stopped", || (state()["status"] == "stopped").then_some(()));
    place.call(&["delete", "one"]).ok();
    assert_ne!(place.call(&["state", "one"]).code, 0);
}

#[test]
fn with_a_range_of_ids() {
    if !std::path::Path::new("/etc/subuid").exists() {
        println!("does not apply: the host has no /etc/subuid to lay ours over");
        return;
    }
    let place = Place::new("range");
    place.script("id -u; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups; touch /tmp/x && stat -c %u /tmp/x");
    let map =
        json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 1000}]);
    place.edit(|config| {
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [35]});
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}));
    });
    let output = place.run();
    assert_eq!(output.ok(), "33\n 0 65534 1\n 1 200000 1000\nallow\n33", "{output:?}");
}

#[test]
fn what_needs_root_says_so() {
    let place = Place::new("needs");
    place.script("true");
    place.edit(|config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "user"));
    let output = place.run();
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("a container without a new user namespace needs root"), "{}", output.stderr);
    assert!(output.stderr.contains("hint: ") && output.stderr.contains("runb spec --rootless"), "{}", output.stderr);
    place.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["resources"] = json!({"memory": {"limit": 33_554_432}});
    });
    let output = place.run();
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("warning: no limit holds"), "{}", output.stderr);
    let refused =
        place.call(&["--rootless", "false", "run", "--bundle", place.path("bundle").to_str().unwrap(), "one"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot create the cgroup"), "{refused:?}");
    assert!(!place.path("run/runb/one").exists());
}
