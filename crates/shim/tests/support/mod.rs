//! A bundle with a busybox root, a shim started for it as the daemon does, and the picture of what is left behind.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use berth_shim_client::{AttachOptions, IoUris, RootfsMount, ShimClient, ShimOptions};
use berth_types::ExecId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};

/// Bounds a hang; it decides nothing.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One container with its shim. Dropping it proves that nothing is left.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) spec: Value,
    pub(crate) io: IoUris,
    pub(crate) events_address: PathBuf,
    /// `None`: as our daemon starts it (OOM events only).
    pub(crate) binary: PathBuf,
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test in a mount namespace of its own, with a deadline.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    use rustix::mount::MountPropagationFlags;
    berth_sys::namespace::unshare_namespaces(rustix::thread::UnshareFlags::NEWNS).unwrap();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let mounts = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count();
    let before = mounts();
    runtime().block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("within the deadline") });
    assert_eq!(mounts(), before, "the host's mount table never changes");
}

pub(crate) fn peer(path: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    let found = std::env::var_os("BERTH_PEERS").map_or(default, PathBuf::from).join("root").join(path);
    assert!(found.exists(), "{} is missing: run tests/fetch-peers.sh", found.display());
    found
}

impl Fixture {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("shim-{name}-{}", std::process::id());
        let layer = dir.path().join("layer");
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(layer.join(name)).unwrap();
        }
        // By a process of its own: a child that another thread makes just then would hold a descriptor that writes to it, and nobody could execute it.
        let copied = Command::new("cp").arg(peer("bin/busybox")).arg(layer.join("bin/busybox")).status().unwrap();
        assert!(copied.success());
        let applets = Command::new(peer("bin/busybox")).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        std::fs::write(layer.join("bin/plain"), "not a program").unwrap();
        for name in ["upper", "work"] {
            std::fs::create_dir_all(dir.path().join("pair").join(name)).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("tasks").join(&id)).unwrap();
        let io = IoUris { stdout: "attach://".to_owned(), stderr: "attach://".to_owned(), ..IoUris::default() };
        let spec = spec(&id);
        Self {
            events_address: dir.path().join("events.sock"),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_containerd-shim-berth-v1")),
            dir,
            id,
            spec,
            io,
        }
    }

    pub(crate) fn sh(mut self, script: &str) -> Self {
        self.spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("tasks").join(&self.id)
    }

    pub(crate) fn log(&mut self) -> PathBuf {
        let path = self.path("x-json.log");
        self.io.stdout = format!("json-file://{}", path.display());
        self.io.stderr = self.io.stdout.clone();
        path
    }

    pub(crate) fn terminal(mut self) -> Self {
        self.io.terminal = true;
        self.io.stdin = "attach://?once=1".to_owned();
        self.spec["process"]["terminal"] = json!(true);
        self
    }

    pub(crate) fn options(&self) -> ShimOptions {
        ShimOptions {
            binary: self.binary.clone(),
            namespace: "default".to_owned(),
            id: self.id.parse().unwrap(),
            bundle: self.bundle(),
            socket_dir: self.path("s"),
            events_address: self.events_address.clone(),
            grpc_address: self.events_address.clone(),
            runtime_options: None,
            reports: berth_shim_client::Reports::OutOfMemory,
            search: Vec::new(),
        }
    }

    pub(crate) async fn start_shim(&self) -> ShimClient {
        ShimClient::start(&self.options()).await.unwrap()
    }

    pub(crate) async fn create(&self, shim: &ShimClient) -> u32 {
        self.try_create(shim).await.unwrap()
    }

    pub(crate) async fn try_create(&self, shim: &ShimClient) -> Result<u32, berth_shim_client::ShimError> {
        std::fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
        shim.create(&self.id.parse().unwrap(), &self.bundle(), &self.rootfs(), &self.io).await
    }

    /// Shim and container, up to the point where init waits.
    pub(crate) async fn created(&self) -> ShimClient {
        let shim = self.start_shim().await;
        self.create(&shim).await;
        shim
    }

    pub(crate) fn rootfs(&self) -> Vec<RootfsMount> {
        let pair = self.path("pair");
        let options = vec![
            format!("lowerdir={}", self.path("layer").display()),
            format!("upperdir={}", pair.join("upper").display()),
            format!("workdir={}", pair.join("work").display()),
            "volatile".to_owned(),
        ];
        vec![RootfsMount {
            fstype: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options,
            ..RootfsMount::default()
        }]
    }

    pub(crate) fn shim_pid(&self) -> Pid {
        let text = std::fs::read_to_string(self.bundle().join("shim.pid")).unwrap();
        Pid::from_raw(text.parse().unwrap()).unwrap()
    }

    /// Delete and Shutdown, then the proof: process, sockets, cgroup and processes are gone.
    pub(crate) async fn finish(&self, shim: ShimClient) -> u32 {
        let pidfd = rustix::process::pidfd_open(self.shim_pid(), PidfdFlags::empty()).unwrap();
        let code = shim.delete(None).await.unwrap().code;
        shim.shutdown().await.unwrap();
        drop(shim);
        self.assert_ended(&pidfd);
        code
    }

    pub(crate) fn assert_ended(&self, shim: &std::os::fd::OwnedFd) {
        let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ended = rustix::event::poll(&mut [PollFd::new(shim, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(ended, 1, "the shim ends after Shutdown");
        let sockets: Vec<_> = std::fs::read_dir(self.path("s")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(sockets, Vec::<PathBuf>::new());
        assert!(!self.bundle().join("io.sock").exists());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
    }

    /// Directories of the container's cgroup, in every hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts =
            mountinfo.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
        mounts.map(|mount| Path::new(mount).join("berth-test").join(&self.id)).filter(|path| path.exists()).collect()
    }
}

/// Attaches a client; its end is returned.
pub(crate) async fn attach(shim: &ShimClient, exec_id: Option<&ExecId>, stdin: bool) -> UnixStream {
    let options = AttachOptions { stdin, stdout: true, stderr: true, ..AttachOptions::default() };
    attach_with(shim, exec_id, &options).await
}

pub(crate) async fn attach_with(shim: &ShimClient, exec_id: Option<&ExecId>, options: &AttachOptions) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    shim.attach(exec_id, theirs.into(), options).await.unwrap();
    ours
}

/// Reads to the end of the stream without blocking the test's own event loop.
pub(crate) async fn read_all(stream: UnixStream) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    stream.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    tokio::net::UnixStream::from_std(stream).unwrap().read_to_end(&mut all).await.unwrap();
    all
}

/// Reads until the output holds `text`.
pub(crate) async fn read_until(stream: &tokio::net::UnixStream, text: &str) -> String {
    let mut all = Vec::new();
    loop {
        stream.readable().await.unwrap();
        match stream.try_read_buf(&mut all) {
            Ok(0) => panic!("the stream ended with {:?}", String::from_utf8_lossy(&all)),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        let so_far = String::from_utf8_lossy(&all);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

pub(crate) async fn write(stream: &tokio::net::UnixStream, bytes: &[u8]) {
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(bytes).unwrap(), bytes.len());
}

pub(crate) fn into_async(stream: UnixStream) -> tokio::net::UnixStream {
    stream.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(stream).unwrap()
}

/// Splits Docker's multiplexed stream; panics when it is cut inside a frame.
pub(crate) fn demultiplex(mut bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(8);
        let len = u32::from_be_bytes(header[4..8].try_into().unwrap()) as usize;
        let (data, rest) = rest.split_at(len);
        streams[usize::from(header[0]) - 1].extend_from_slice(data);
        bytes = rest;
    }
    streams
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits for a condition outside of our event loop.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The runtime-spec's `Process` for an exec.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {},
        "noNewPrivileges": true,
    })
}

fn spec(id: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["/bin/true"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "shim-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "cgroupsPath": format!("/berth-test/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"},
            ],
        },
    })
}

/// Takes events as an engine does.
pub(crate) struct EventServer {
    _server: berth_proto::ttrpc::r#async::Server,
    events: tokio::sync::mpsc::UnboundedReceiver<(String, String)>,
}

struct Recorder(tokio::sync::mpsc::UnboundedSender<(String, String)>);

#[async_trait::async_trait]
impl berth_proto::events::Events for Recorder {
    async fn forward(
        &self,
        _: &berth_proto::ttrpc::r#async::TtrpcContext,
        request: berth_proto::events::ForwardRequest,
    ) -> berth_proto::ttrpc::Result<berth_proto::task::Empty> {
        let envelope = request.envelope.into_option().unwrap();
        assert!(envelope.event.type_url.starts_with("containerd.events.Task"), "{}", envelope.event.type_url);
        self.0.send((envelope.namespace, envelope.topic)).unwrap();
        Ok(berth_proto::task::Empty::default())
    }
}

impl EventServer {
    pub(crate) async fn start(address: &Path) -> Self {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let mut server = berth_proto::ttrpc::r#async::Server::new()
            .bind(&format!("unix://{}", address.display()))
            .unwrap()
            .register_service(berth_proto::events::create_events(std::sync::Arc::new(Recorder(sender))));
        server.start().await.unwrap();
        Self { _server: server, events }
    }

    pub(crate) async fn next(&mut self) -> (String, String) {
        self.events.recv().await.unwrap()
    }
}

/// The binary in memory, made once, as the daemon executes it. The descriptor stays open.
pub(crate) fn sealed_copy(binary: &Path) -> i32 {
    use std::os::fd::IntoRawFd;
    static COPY: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
    *COPY.get_or_init(|| {
        let copy = rustix::fs::memfd_create("shim", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut copy = std::fs::File::from(copy);
        std::io::copy(&mut std::fs::File::open(binary).unwrap(), &mut copy).unwrap();
        copy.into_raw_fd()
    })
}
