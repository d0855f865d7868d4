//! Debian's own containerd (and its dockerd on top) in a directory of the test's, to run our shim and others under.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::deadline::wait_until;
use crate::instance::{CGROUP_PARENT, Output, run};
use crate::peers;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A running containerd, with what it was started on.
#[derive(Debug)]
pub struct Containerd {
    pub directory: PathBuf,
    daemon: Child,
    dockerd: Option<Child>,
}

impl Containerd {
    /// `bin`: a directory in front of its PATH, where it looks for shims.
    pub fn start(bin: &Path) -> Self {
        let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
        let name = format!("c{}-{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = root.join(name);
        std::fs::create_dir_all(directory.join("fifo")).unwrap();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/grpc\"\n[ttrpc]\naddress = \"{0}/ttrpc\"\n",
            directory.display()
        );
        let file = directory.join("config.toml");
        std::fs::write(&file, config).unwrap();
        let daemon = peer_command("usr/bin/containerd", Some(bin))
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log(&directory))
            .stderr(log(&directory))
            .spawn()
            .unwrap();
        let containerd = Self { directory, daemon, dockerd: None };
        wait_until("containerd answers", || (containerd.ctr(&["version"]).code == 0).then_some(()));
        containerd
    }

    /// With `busybox:latest` imported.
    pub fn with_busybox(bin: &Path) -> Self {
        let containerd = Self::start(bin);
        let archive = containerd.directory.join("busybox.tar");
        std::fs::write(&archive, crate::Image::busybox().docker_archive()).unwrap();
        containerd.ctr(&["images", "import", archive.to_str().unwrap()]).ok();
        containerd
    }

    pub fn ctr_command(&self, words: &[&str]) -> Command {
        let mut command = peer_command("usr/bin/ctr", None);
        command.arg("--address").arg(self.directory.join("grpc")).args(words);
        command
    }

    pub fn ctr(&self, words: &[&str]) -> Output {
        run(self.ctr_command(words), b"")
    }

    /// Of a container, below the parent of all tests' groups.
    pub fn cgroup(&self, id: &str) -> String {
        format!("{CGROUP_PARENT}/{}/{id}", self.directory.file_name().unwrap().to_str().unwrap())
    }

    /// `ctr run` with options before the image.
    pub fn run(&self, options: &[&str], id: &str, words: &[&str]) -> Output {
        run(self.run_command(options, id, words), b"")
    }

    pub fn run_command(&self, options: &[&str], id: &str, words: &[&str]) -> Command {
        let fifos = self.fifo_dir();
        let cgroup = self.cgroup(id);
        let common = ["run", "--fifo-dir", &fifos, "--cgroup", &cgroup];
        self.ctr_command(&[&common, options, &["docker.io/library/busybox:latest", id], words].concat())
    }

    pub fn fifo_dir(&self) -> String {
        self.directory.join("fifo").display().to_string()
    }

    /// Debian's dockerd on top; `options` beside what keeps it in its directory.
    pub fn start_dockerd(&mut self, options: &[&str]) {
        let dir = &self.directory;
        let child = peer_command("usr/sbin/dockerd", None)
            .arg("--containerd")
            .arg(dir.join("grpc"))
            .arg("--data-root")
            .arg(dir.join("docker"))
            .arg("--exec-root")
            .arg(dir.join("docker-exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .args(["-H", &self.docker_host(), "--bridge=none", "--iptables=false", "--storage-driver", "overlay2"])
            .args(["--cgroup-parent", &self.cgroup("docker")])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log(dir))
            .stderr(log(dir))
            .spawn()
            .unwrap();
        self.dockerd = Some(child);
        wait_until("dockerd answers", || (self.docker(&["version"], b"").code == 0).then_some(()));
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    pub fn docker(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(peers::docker());
        command.env("DOCKER_HOST", self.docker_host()).env("DOCKER_CONFIG", &self.directory).args(words);
        run(command, input)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Processes that were started with this directory in their words: shims and what they started.
    pub fn processes(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(name) && line.contains(&*self.directory.to_string_lossy()) {
                found.push(line);
            }
        }
        found
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of containerd ---\n{}", self.log());
        }
        for child in self.dockerd.iter_mut().chain([&mut self.daemon]) {
            let pid = rustix::process::Pid::from_child(child);
            if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
                child.wait().unwrap();
            }
        }
        if !std::thread::panicking() {
            // containerd does not wait for a shim that it has told to shut down.
            wait_until("the shims have ended", || self.processes("containerd-shim").is_empty().then_some(()));
        }
        let group = self.cgroup("");
        crate::leak::remove_empty_groups(group.trim_end_matches('/'));
        let left = crate::leak::Picture::take(group.trim_end_matches('/'));
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
        if !std::thread::panicking() {
            let mounts: Vec<_> = left.mounts.iter().filter(|m| Path::new(m).starts_with(&self.directory)).collect();
            assert!(mounts.is_empty(), "mounts are left: {mounts:#?}");
            assert!(left.cgroups.is_empty(), "cgroups are left: {:#?}", left.cgroups);
        }
    }
}

fn peer_command(program: &str, first: Option<&Path>) -> Command {
    let root = peers::peer("usr/bin/ctr").ancestors().nth(3).unwrap().to_owned();
    let mut command = Command::new(peers::peer(program));
    let bins = ["usr/bin", "usr/sbin", "sbin", "bin"].map(|directory| root.join(directory));
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let path = first.into_iter().map(Path::to_owned).chain(bins).chain(system);
    command.env("PATH", std::env::join_paths(path).unwrap());
    command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    command
}

fn log(directory: &Path) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap()
}
