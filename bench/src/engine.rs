//! The engines under comparison, each a private daemon with its image loaded, and how each is told the same thing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::peers::{binaries, peer, workspace};
use berth_testkit::{Image, wait_until};

/// What the host's own directories must show to peers that cannot be told otherwise: CNI plugins and their configuration
/// for `ctr --cni`. Seen in our mount namespace only.
pub fn prepare_host_view() {
    let directory = directory().join("view");
    for name in ["upper", "work"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    mount(&["-t", "tmpfs", "tmpfs", "/opt"]);
    fs::create_dir_all("/opt/cni").unwrap();
    std::os::unix::fs::symlink(peer("usr/lib/cni"), "/opt/cni/bin").unwrap();
    let options = format!("lowerdir=/etc,upperdir={0}/upper,workdir={0}/work", directory.display());
    // The upper directory must not be on an overlay; below target/ it is on the disk.
    mount(&["-t", "overlay", "-o", &options, "overlay", "/etc"]);
    fs::create_dir_all("/etc/cni/net.d").unwrap();
    let network = r#"{"cniVersion":"0.4.0","name":"bench","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,
        "ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}"#;
    fs::write("/etc/cni/net.d/10-bench.conflist", network).unwrap();
    mount(&["-t", "tmpfs", "tmpfs", "/run"]);
    // What the package's installation would link.
    fs::create_dir_all("/run/bench-bin").unwrap();
    for name in ["iptables", "ip6tables"] {
        std::os::unix::fs::symlink(peer(&format!("usr/sbin/{name}-nft")), format!("/run/bench-bin/{name}")).unwrap();
    }
}

fn mount(words: &[&str]) {
    let status = Command::new("mount").args(words).status().unwrap();
    assert!(status.success(), "mount {words:?}");
}

/// Everything of the benchmark lives here and goes at its end.
pub fn directory() -> PathBuf {
    workspace().join("target/bench")
}

/// PATH and libraries so that unpacked peers find each other.
fn peer_command(program: &str) -> Command {
    let root = peer("usr/bin/ctr").ancestors().nth(3).unwrap().to_owned();
    let mut command = Command::new(peer(program));
    let bins: Vec<String> =
        ["usr/bin", "usr/sbin", "sbin", "bin"].iter().map(|d| root.join(d).display().to_string()).collect();
    command.env("PATH", format!("/run/bench-bin:{}:/usr/sbin:/usr/bin:/sbin:/bin", bins.join(":")));
    command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    command.env("XTABLES_LIBDIR", root.join("usr/lib/x86_64-linux-gnu/xtables"));
    command
}

/// One engine: its name, its daemons, and its words for each action.
#[derive(Debug)]
pub struct Engine {
    pub name: &'static str,
    daemons: Vec<Child>,
}

impl Engine {
    pub fn berth() -> Self {
        let dir = directory().join("berth");
        fs::create_dir_all(&dir).unwrap();
        let daemon = Command::new(binaries().join("berthd"))
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--state")
            .arg("/run/berth-bench")
            .args([
                "--bridge",
                "berthb0",
                "--subnet",
                "10.89.0.0/16",
                "--nft-table",
                "berthb",
                "--cgroup-parent",
                "/berth-bench",
                "--private",
                "--log-level",
                "warn",
            ])
            .stderr(log(&dir))
            .spawn()
            .unwrap();
        let engine = Self { name: "berth", daemons: vec![daemon] };
        wait_until("berthd answers", || {
            engine
                .command(&["version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
                .then_some(())
        });
        engine.load(&["load", "-i"]);
        engine
    }

    pub fn docker(containerd: &Path) -> Self {
        let dir = directory().join("docker");
        fs::create_dir_all(&dir).unwrap();
        let daemon = peer_command("usr/sbin/dockerd")
            .arg("--containerd")
            .arg(containerd)
            .arg("--data-root")
            .arg(dir.join("root"))
            .arg("--exec-root")
            .arg("/run/docker-bench")
            .args([
                "-H",
                "unix:///run/docker-bench.sock",
                "--pidfile",
                "/run/docker-bench.pid",
                "--bip",
                "10.90.0.1/16",
                "--storage-driver",
                "overlay2",
                "--userland-proxy=false",
            ])
            .stdout(log(&dir))
            .stderr(log(&dir))
            .spawn()
            .unwrap();
        let engine = Self { name: "docker", daemons: vec![daemon] };
        wait_until("dockerd answers", || {
            engine
                .command(&["version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
                .then_some(())
        });
        engine.load(&["load", "-q", "-i"]);
        engine
    }

    pub fn containerd() -> Self {
        let dir = directory().join("containerd");
        fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "version = 2\nroot = \"{}/root\"\nstate = \"/run/containerd-bench\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
            dir.display(),
            CONTAINERD
        );
        fs::write(dir.join("config.toml"), config).unwrap();
        let daemon = peer_command("usr/bin/containerd")
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdout(log(&dir))
            .stderr(log(&dir))
            .spawn()
            .unwrap();
        let engine = Self { name: "ctr", daemons: vec![daemon] };
        wait_until("containerd answers", || {
            engine
                .command(&["version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
                .then_some(())
        });
        engine.load(&["images", "import"]);
        engine
    }

    /// The engine's client with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.name {
            "berth" => {
                let mut command = Command::new(binaries().join("berth"));
                command.env("BERTH_HOST", "unix:///run/berth-bench/docker.sock");
                command
            }
            "docker" => {
                let mut command = peer_command("usr/bin/docker");
                command.env("DOCKER_HOST", "unix:///run/docker-bench.sock").env("DOCKER_CONFIG", directory());
                command
            }
            _ => {
                let mut command = peer_command("usr/bin/ctr");
                command.args(["--address", CONTAINERD]);
                command
            }
        };
        command.args(words).stdin(Stdio::null());
        command
    }

    fn load(&self, words: &[&str]) {
        let archive = directory().join("busybox.tar");
        if !archive.exists() {
            fs::write(&archive, Image::busybox().docker_archive()).unwrap();
        }
        let status = self.command(words).arg(&archive).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{} loads the image", self.name);
    }

    /// Client words of `run --rm` with this network (`none` or `bridge`).
    pub fn run_true(&self, network: &str, id: &str) -> Vec<String> {
        let words: Vec<&str> = match (self.name, network) {
            ("ctr", "bridge") => vec!["run", "--rm", "--cni", IMAGE, id, "true"],
            ("ctr", _) => vec!["run", "--rm", IMAGE, id, "true"],
            (_, network) => vec!["run", "--rm", "--network", network, "busybox", "true"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// Client words of a sleeping background container.
    pub fn run_sleep(&self, network: &str, id: &str) -> Vec<String> {
        let words: Vec<&str> = match (self.name, network) {
            ("ctr", "bridge") => vec!["run", "-d", "--cni", IMAGE, id, "sleep", "100000"],
            ("ctr", _) => vec!["run", "-d", IMAGE, id, "sleep", "100000"],
            (_, network) => vec!["run", "-d", "--name", id, "--network", network, "busybox", "sleep", "100000"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    pub fn exec_true(&self, id: &str, exec_id: &str) -> Vec<String> {
        let words: Vec<&str> = match self.name {
            "ctr" => vec!["task", "exec", "--exec-id", exec_id, id, "true"],
            _ => vec!["exec", id, "true"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    pub fn remove(&self, id: &str) {
        if self.name == "ctr" {
            quiet(&mut self.command(&["task", "kill", "-s", "9", id]));
            wait_until("the task is gone", || quiet(&mut self.command(&["task", "rm", id])).then_some(()));
            quiet(&mut self.command(&["containers", "rm", id]));
        } else {
            quiet(&mut self.command(&["rm", "-f", id]));
        }
    }

    pub fn daemon_pids(&self) -> Vec<u32> {
        self.daemons.iter().map(Child::id).collect()
    }
}

pub const CONTAINERD: &str = "/run/containerd-bench.sock";
const IMAGE: &str = "docker.io/library/busybox:latest";

/// Runs it, says whether it went well.
pub fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

fn log(directory: &Path) -> fs::File {
    fs::File::options().create(true).append(true).open(directory.join("log")).unwrap()
}

impl Drop for Engine {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let pid = rustix::process::Pid::from_child(daemon);
            // It may have ended by itself; the namespace's end takes the rest.
            if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
                daemon.wait().unwrap();
            }
        }
    }
}
