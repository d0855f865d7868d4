//! The engines under comparison, each a private daemon with its image loaded, and how each is told the same thing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::peers::{binaries, peer, workspace};
use berth_testkit::{Image, wait_until};

use crate::measure::Candidate;
use crate::meter::Meter;

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
    // CNI keeps its addresses there.
    mount(&["-t", "tmpfs", "tmpfs", "/var/lib"]);
    // What the package's installation would link.
    fs::create_dir_all("/run/bench-bin").unwrap();
    for name in ["iptables", "ip6tables"] {
        std::os::unix::fs::symlink(peer(&format!("usr/sbin/{name}-nft")), format!("/run/bench-bin/{name}")).unwrap();
    }
}

/// A view of our own of the host's v1 hierarchies without the unified one: crun refuses a host that has both.
pub fn without_unified_hierarchy() {
    if !Path::new("/sys/fs/cgroup/unified").is_dir() {
        return;
    }
    let view = "/run/bench-cgroup";
    fs::create_dir_all(view).unwrap();
    mount(&["-t", "tmpfs", "tmpfs", view]);
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let name = entry.file_name().into_string().expect("hierarchies have plain names");
        if name != "unified" && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::create_dir(format!("{view}/{name}")).unwrap();
            mount(&["--bind", &format!("/sys/fs/cgroup/{name}"), &format!("{view}/{name}")]);
        }
    }
    let status = Command::new("umount").args(["-l", "/sys/fs/cgroup"]).status().unwrap();
    assert!(status.success(), "umount of /sys/fs/cgroup");
    mount(&["--rbind", view, "/sys/fs/cgroup"]);
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
pub fn peer_command(program: &str) -> Command {
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
    meter: Meter,
    daemons: Vec<Child>,
}

impl Candidate for Engine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl Engine {
    pub fn berth() -> Self {
        let (meter, dir) = prepare("berth");
        let daemon = Command::new(binaries().join("berthd"))
            .arg("--root")
            .arg(dir.join("root"))
            .args(["--state", "/run/berth-bench", "--bridge", "berthb0", "--subnet", "10.89.0.0/16"])
            .args(["--nft-table", "berthb", "--cgroup-parent", meter.cgroup_path(), "--private", "--log-level", "warn"])
            .stderr(log(&dir))
            .spawn()
            .unwrap();
        Self { name: "berth", meter, daemons: vec![daemon] }.ready(&["load", "-i"])
    }

    /// dockerd on a containerd of its own, so that what its shims cost is counted as Docker's.
    pub fn docker() -> Self {
        let (meter, dir) = prepare("docker");
        let containerd = start_containerd(&dir, "docker-containerd");
        let daemon = peer_command("usr/sbin/dockerd")
            .args(["--containerd", &containerd_socket("docker-containerd"), "--cgroup-parent", meter.cgroup_path()])
            .arg("--data-root")
            .arg(dir.join("root"))
            .args(["--exec-root", "/run/docker-bench", "-H", "unix:///run/docker-bench.sock"])
            .args(["--pidfile", "/run/docker-bench.pid", "--bip", "10.90.0.1/16"])
            .args(["--storage-driver", "overlay2", "--userland-proxy=false"])
            .stdout(log(&dir))
            .stderr(log(&dir))
            .spawn()
            .unwrap();
        Self { name: "docker", meter, daemons: vec![daemon, containerd] }.ready(&["load", "-q", "-i"])
    }

    pub fn containerd() -> Self {
        let (meter, dir) = prepare("ctr");
        let daemon = start_containerd(&dir, "containerd-bench");
        Self { name: "ctr", meter, daemons: vec![daemon] }.ready(&["images", "import"])
    }

    /// It has no daemon: its client does everything.
    pub fn podman() -> Self {
        let (meter, dir) = prepare("podman");
        fs::create_dir_all("/etc/containers").unwrap();
        fs::write("/etc/containers/policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        fs::create_dir_all(&dir).unwrap();
        // Through runc: crun takes no hybrid hierarchy. Without CAP_SYS_RESOURCE podman's own default limits could not be set.
        let conf = format!(
            "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\n\
             [engine]\nevents_logger=\"file\"\nconmon_path=[\"{}\"]\nruntime=\"runc\"\n[engine.runtimes]\nrunc=[\"{}\"]\n",
            peer("usr/bin/conmon").display(),
            dir.join("runc").display()
        );
        fs::write(dir.join("containers.conf"), conf).unwrap();
        // podman starts it without the variable that names its libraries.
        let library = peer("usr/sbin/runc").ancestors().nth(2).unwrap().join("lib/x86_64-linux-gnu");
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
            library.display(),
            peer("usr/sbin/runc").display()
        );
        fs::write(dir.join("runc"), script).unwrap();
        fs::set_permissions(dir.join("runc"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { name: "podman", meter, daemons: Vec::new() }.ready(&["load", "-i"])
    }

    /// Waits until it answers and loads the image.
    fn ready(self, load: &[&str]) -> Self {
        wait_until("the engine answers", || quiet(&mut self.command(&["version"])).then_some(()));
        let archive = directory().join("busybox.tar");
        if !archive.exists() {
            fs::write(&archive, Image::busybox().docker_archive()).unwrap();
        }
        assert!(quiet(self.command(load).arg(&archive)), "{} loads the image", self.name);
        self
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
            "podman" => {
                let mut command = peer_command("usr/bin/podman");
                command.env("CONTAINERS_CONF", directory().join("podman/containers.conf"));
                command.arg("--root").arg(directory().join("podman/root")).args(PODMAN);
                command
            }
            _ => {
                let mut command = peer_command("usr/bin/ctr");
                command.args(["--address", &containerd_socket("containerd-bench")]);
                command
            }
        };
        let words = match (self.name, words) {
            ("podman", ["run", rest @ ..]) => {
                command.args(["run", "--cgroup-parent"]).arg(self.meter.cgroup_path());
                rest
            }
            _ => words,
        };
        command.args(words).stdin(Stdio::null());
        command
    }

    /// containerd's client, against this engine's socket of that API.
    pub fn ctr(&self, words: &[String]) -> Command {
        let mut command = peer_command("usr/bin/ctr");
        command.args(["--address", &self.containerd_socket()]).args(words).stdin(Stdio::null());
        command
    }

    pub fn containerd_socket(&self) -> String {
        if self.name == "berth" {
            "/run/berth-bench/containerd.sock".to_owned()
        } else {
            containerd_socket("containerd-bench")
        }
    }

    /// `ctr run OPTIONS`, in this engine's group.
    pub fn ctr_run(&self, id: &str, options: &[&str], words: &[&str]) -> Vec<String> {
        let group = format!("{}/{id}", self.meter.cgroup_path());
        [&["run", "--cgroup", &group], options, &[IMAGE, id], words].concat().into_iter().map(str::to_owned).collect()
    }

    /// Client words of `run --rm` with this network (`none` or `bridge`).
    pub fn run_true(&self, network: &str, id: &str) -> Vec<String> {
        let group = format!("{}/{id}", self.meter.cgroup_path());
        let words: Vec<&str> = match (self.name, network) {
            ("ctr", "bridge") => vec!["run", "--rm", "--cgroup", &group, "--cni", IMAGE, id, "true"],
            ("ctr", _) => vec!["run", "--rm", "--cgroup", &group, IMAGE, id, "true"],
            (_, network) => vec!["run", "--rm", "--network", network, "busybox", "true"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// Client words of a sleeping background container.
    pub fn run_sleep(&self, network: &str, id: &str) -> Vec<String> {
        let group = format!("{}/{id}", self.meter.cgroup_path());
        let words: Vec<&str> = match (self.name, network) {
            ("ctr", "bridge") => vec!["run", "-d", "--cgroup", &group, "--cni", IMAGE, id, "sleep", "100000"],
            ("ctr", _) => vec!["run", "-d", "--cgroup", &group, IMAGE, id, "sleep", "100000"],
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

    /// Removes them by as few clients as the engine allows.
    pub fn remove_all(&self, ids: &[String]) {
        if self.name == "ctr" {
            ids.iter().for_each(|id| self.remove(id));
        } else {
            let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
            assert!(quiet(&mut self.command(&words)), "{} removes its containers", self.name);
        }
    }

    pub fn daemon_pids(&self) -> Vec<u32> {
        self.daemons.iter().map(Child::id).collect()
    }
}

/// A group to be counted in, entered so that its daemons are in it, and a directory.
fn prepare(name: &str) -> (Meter, PathBuf) {
    let meter = Meter::new(name);
    meter.enter();
    let dir = directory().join(name);
    fs::create_dir_all(&dir).unwrap();
    (meter, dir)
}

fn containerd_socket(name: &str) -> String {
    format!("/run/{name}.sock")
}

fn start_containerd(dir: &Path, name: &str) -> Child {
    let config = format!(
        "version = 2\nroot = \"{}/{name}\"\nstate = \"/run/{name}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
        dir.display(),
        containerd_socket(name)
    );
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, config).unwrap();
    let daemon =
        peer_command("usr/bin/containerd").arg("--config").arg(file).stdout(log(dir)).stderr(log(dir)).spawn().unwrap();
    wait_until("containerd listens", || Path::new(&containerd_socket(name)).exists().then_some(()));
    daemon
}

const PODMAN: [&str; 6] =
    ["--runroot", "/run/podman-bench", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"];
const IMAGE: &str = "docker.io/library/busybox:latest";

/// Runs it, says whether it went well.
pub fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Runs what must go well, and panics with what was said otherwise.
#[track_caller]
pub fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
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
