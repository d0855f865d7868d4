//! Debian's containerd as a server of its own: what our clients of its API are tested against.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{peers, wait_until};

/// A running containerd; dropped, it ends.
#[derive(Debug)]
pub struct Containerd {
    directory: PathBuf,
    is_scratch: bool,
    child: Child,
}

static NEXT: AtomicU32 = AtomicU32::new(1);

impl Containerd {
    /// With its snapshotters `overlayfs` and `native`, keeping everything in a directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let disabled = ["grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper"];
        let disabled = disabled.iter().chain(&["snapshotter.v1.zfs", "internal.v1.opt"]);
        let disabled: Vec<String> = disabled.map(|name| format!("{:?}", format!("io.containerd.{name}"))).collect();
        let config = directory.join("config.toml");
        std::fs::write(&config, format!("version = 2\ndisabled_plugins = [{}]\n", disabled.join(", "))).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let binary = peers::peer("usr/bin/containerd");
        let library = binary.ancestors().nth(2).unwrap().join("lib/x86_64-linux-gnu");
        let mut child = Command::new(&binary)
            .env("LD_LIBRARY_PATH", library)
            .arg("--config")
            .arg(config)
            .args(["--root", &directory.join("root").display().to_string()])
            .args(["--state", &directory.join("state").display().to_string()])
            .args(["--address", &directory.join("c.sock").display().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = directory.join("c.sock");
        wait_until("containerd answers", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("containerd: {status}: {}", std::fs::read_to_string(directory.join("log")).unwrap());
            }
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        Self { directory: directory.to_owned(), is_scratch: false, child }
    }

    /// In a directory of its own below the test root, gone with it.
    pub fn scratch() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = crate::instance::test_root().join(format!("ctd-{}-{number:03}", std::process::id()));
        let mut server = Self::start(&directory);
        server.is_scratch = true;
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("c.sock")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have been ended by the test.
        self.child.kill().ok();
        self.child.wait().ok();
        // What its plug-ins mounted below its own directory.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
        for path in below.filter(|path| Path::new(path).starts_with(&self.directory)) {
            rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).ok();
        }
        if self.is_scratch {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }
}
