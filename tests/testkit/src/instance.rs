//! A private daemon below the test root, its clients, and a check at the end that nothing of it is left.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::deadline::wait_until;
use crate::peers;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The parent of every cgroup that tests make.
pub const CGROUP_PARENT: &str = "/berth-test";

/// What a client said.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output without the last newline, when it went well; panics with everything otherwise.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "expected success, got {self:?}");
        self.stdout.strip_suffix('\n').unwrap_or(&self.stdout)
    }
}

/// A running `berthd` of our own.
#[derive(Debug)]
pub struct Instance {
    pub directory: PathBuf,
    pub number: u32,
    daemon: Option<Child>,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
    /// Searched by the daemon before the system's directories.
    first_on_path: Vec<PathBuf>,
}

/// Where all instances live: `BERTH_TEST_ROOT`, else a directory of this process below the system's temporary one.
pub fn test_root() -> PathBuf {
    std::env::var_os("BERTH_TEST_ROOT").map_or_else(|| std::env::temp_dir().join("berth-test"), PathBuf::from)
}

impl Instance {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments for `berthd`.
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_so(extra, &[])
    }

    /// With further arguments and variables for `berthd`, after its directory was prepared.
    pub fn start_in(extra: &[&str], environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut instance = Self::prepared(extra, &[]);
        instance.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        prepare(&instance.directory);
        instance.spawn();
        instance
    }

    /// With a directory in front of the daemon's PATH.
    pub fn start_on_path(directory: &Path) -> Self {
        Self::start_so(&[], &[directory])
    }

    /// With further arguments, and directories in front of the daemon's PATH.
    pub fn start_so(extra: &[&str], first_on_path: &[&Path]) -> Self {
        let mut instance = Self::prepared(extra, first_on_path);
        instance.spawn();
        instance
    }

    fn prepared(extra: &[&str], first_on_path: &[&Path]) -> Self {
        let first_on_path = first_on_path.iter().map(|path| (*path).to_owned()).collect();
        // As long as the others: no name is the beginning of another, by which its processes would be taken for this one's.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = test_root().join(format!("{}-{number:03}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let extra = extra.iter().map(|word| (*word).to_owned()).collect();
        Self { directory, number, daemon: None, extra, environment: Vec::new(), first_on_path }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.state().join("docker.sock")
    }

    pub fn cgroup_parent(&self) -> String {
        format!("{CGROUP_PARENT}/{}-{:03}", std::process::id(), self.number)
    }

    pub fn bridge(&self) -> String {
        format!("bt{}-{:03}", std::process::id() % 100_000, self.number)
    }

    /// A /24 that no other instance of this machine has while it runs.
    fn subnet(&self) -> String {
        let slot = (std::process::id().wrapping_mul(31).wrapping_add(self.number)) % 60_000;
        format!("10.{}.{}.0/24", 16 + slot / 256, slot % 256)
    }

    /// With `busybox:latest` loaded.
    pub fn with_busybox() -> Self {
        let instance = Self::start();
        instance.load(&crate::Image::busybox().docker_archive()).ok();
        instance
    }

    /// `berth run --rm busybox WORDS…` with options before the image.
    pub fn busybox(&self, options: &[&str], words: &[&str]) -> Output {
        let all = [&["run", "--rm"], options, &["busybox"], words].concat();
        self.berth(&all)
    }

    /// A background container of this name that sleeps.
    #[track_caller]
    pub fn sleeper(&self, name: &str, options: &[&str]) -> String {
        let all = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat();
        self.berth(&all).ok().to_owned()
    }

    /// Starts the daemon and does not wait for it.
    pub fn launch(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join("berthd.log")).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = self.first_on_path.iter().cloned().chain(std::env::split_paths(&path));
        let child = Command::new(peers::binaries().join("berthd"))
            .env("PATH", std::env::join_paths(path).unwrap())
            .envs(self.environment.iter().cloned())
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(["--bridge", &self.bridge(), "--subnet", &self.subnet(), "--nft-table", &self.bridge()])
            .args(["--cgroup-parent", &self.cgroup_parent(), "--private", "--log-level", "debug"])
            .arg("--fault-points")
            .arg(self.fault_points())
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    /// Starts the daemon and waits until it answers.
    pub fn spawn(&mut self) {
        self.launch();
        let socket = self.socket();
        wait_until("the daemon answers", || {
            if let Some(status) = self.daemon.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("berthd ended with {status}:\n{}", self.log());
            }
            let stream = std::os::unix::net::UnixStream::connect(&socket).ok()?;
            // Not a killed one's socket, which a child of it holds until it executes its program.
            let listener = rustix::net::sockopt::socket_peercred(&stream).ok()?.pid;
            (u32::try_from(listener.as_raw_nonzero().get()).ok()? == self.daemon_pid()).then_some(())
        });
    }

    /// Control file of the daemon's fault points.
    pub fn fault_points(&self) -> PathBuf {
        self.directory.join("faults")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("berthd.log")).unwrap_or_default()
    }

    /// The daemon is dead, by its own hand or another's: takes it off, so that `spawn` can follow.
    ///
    /// # Panics
    /// When it still lives after 60 s.
    pub fn await_daemon_death(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        wait_until("the daemon dies", || child.try_wait().unwrap());
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// `kill -9` of the daemon; containers and shims live on.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A `berth` command of this instance, to be extended.
    pub fn berth_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(peers::binaries().join("berth"));
        command.env("BERTH_HOST", format!("unix://{}", self.socket().display())).args(words);
        command
    }

    /// A stock `docker` command against this instance.
    pub fn docker_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(peers::docker());
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("DOCKER_CONFIG", &self.directory);
        command.args(words);
        command
    }

    /// Where containerd's API is served.
    pub fn containerd_socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// A stock `ctr` command against this instance.
    pub fn ctr_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(peers::peer("usr/bin/ctr"));
        command.arg("--address").arg(self.containerd_socket()).args(words);
        command
    }

    pub fn ctr(&self, words: &[&str]) -> Output {
        run(self.ctr_command(words), b"")
    }

    /// Debian's `ctr` against any server.
    pub fn ctr_of(&self, socket: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(peers::peer("usr/bin/ctr"));
        command.arg("--address").arg(socket).args(words);
        run(command, b"")
    }

    pub fn berth(&self, words: &[&str]) -> Output {
        run(self.berth_command(words), b"")
    }

    pub fn berth_with_input(&self, words: &[&str], input: &[u8]) -> Output {
        run(self.berth_command(words), input)
    }

    pub fn docker(&self, words: &[&str]) -> Output {
        run(self.docker_command(words), b"")
    }

    /// Loads an archive and gives the client's words back.
    pub fn load(&self, archive: &[u8]) -> Output {
        self.berth_with_input(&["load"], archive)
    }

    /// The container's field of `inspect`, as text.
    pub fn inspect(&self, container: &str, format: &str) -> String {
        self.berth(&["inspect", "--format", format, container]).ok().to_owned()
    }

    pub fn pid(&self, container: &str) -> u32 {
        self.inspect(container, "{{.State.Pid}}").parse().unwrap()
    }
}

/// A command that takes longer hangs: it is killed, so that its test fails and not the whole suite stands still.
const COMMAND_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// Runs a command with this input to its end.
pub fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    let output = std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            if ended.recv_timeout(COMMAND_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a command is killed after {COMMAND_MAX:?}");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        });
        // A client that ends early closes the pipe; that is its affair.
        scope.spawn(move || stdin.write_all(input).and_then(|()| stdin.flush()).unwrap_or(()));
        let output = child.wait_with_output().unwrap();
        drop(end);
        output
    });
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", self.log());
        }
        if self.daemon.is_none() {
            self.spawn();
        }
        let all = self.berth(&["ps", "-aq", "--no-trunc"]).stdout;
        for id in all.lines() {
            let removed = self.berth(&["rm", "-f", "-v", id]);
            if removed.code != 0 && !std::thread::panicking() {
                panic!("cannot remove {id}: {removed:?}\n{}", self.log());
            }
        }
        let mut child = self.daemon.take().expect("just ensured");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        // Shims end by themselves once their task is deleted; that may be a moment after the client was answered.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut left = self.left_behind();
        while !left.is_empty() && std::time::Instant::now() < deadline {
            left = self.left_behind();
        }
        let log = self.log();
        remove_tree(&self.directory);
        if !std::thread::panicking() {
            assert!(status.success(), "berthd ended with {status}\n{log}");
            assert!(left.is_empty(), "left behind: {left:#?}\n{log}");
        }
    }
}

impl Instance {
    /// What this instance should have taken with it: cgroups, its bridge, task directories, shims.
    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        let picture = crate::leak::Picture::take(&self.cgroup_parent());
        left.extend(picture.cgroups.iter().map(|name| format!("cgroup {name}")));
        left.extend(picture.links.iter().filter(|name| **name == self.bridge()).map(|name| format!("link {name}")));
        left.extend(
            picture.mounts.iter().filter(|m| Path::new(m).starts_with(&self.directory)).map(|m| format!("mount {m}")),
        );
        let tasks = std::fs::read_dir(self.state().join("tasks")).into_iter().flatten().flatten();
        left.extend(tasks.map(|entry| format!("task {}", entry.path().display())));
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&*self.directory.to_string_lossy()) {
                left.push(format!("process {} {line}", entry.file_name().to_string_lossy()));
            }
        }
        left
    }
}

fn remove_tree(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        eprintln!("cannot remove {}: {error}", directory.display());
    }
}
