//! stargz-snapshotter itself, built of Debian's packages by `tests/build-stargz.sh`: `make compat` runs this and says in `BERTH_STARGZ` where it is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::instance::{run, test_root};
use berth_testkit::registry::DockerRegistry;
use berth_testkit::{Image, Instance, LayerFile, Output, wait_until};

struct Stargz {
    directory: PathBuf,
    programs: PathBuf,
    child: Option<Child>,
}

impl Stargz {
    fn start(name: &str) -> Self {
        let programs = std::env::var_os("BERTH_STARGZ").expect("`make compat` says in BERTH_STARGZ where it was built");
        let directory = test_root().join(format!("stargz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut stargz = Self { directory, programs: programs.into(), child: None };
        stargz.spawn();
        stargz
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("s.sock")
    }

    fn address(&self) -> String {
        format!("stargz=unix://{}", self.socket().display())
    }

    fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join("log")).unwrap();
        let child = Command::new(self.programs.join("containerd-stargz-grpc"))
            .args([self.socket(), self.directory.join("root")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("stargz answers", || std::os::unix::net::UnixStream::connect(self.socket()).ok());
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        let mut child = self.child.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
    }

    /// stargz-snapshotter's own client, `ctr` with two more commands.
    fn ctr_remote(&self, berth: &Instance, words: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join("ctr-remote"));
        command.arg("--address").arg(berth.containerd_socket()).args(words);
        run(command, b"")
    }

    fn fuse_mounts(&self) -> usize {
        let root = self.directory.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(&root) && line.contains(" - fuse")).count()
    }
}

impl Drop for Stargz {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of stargz ---\n{}", std::fs::read_to_string(self.directory.join("log")).unwrap());
        }
        self.end(rustix::process::Signal::INT);
        let left = self.fuse_mounts();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let target = line.split(' ').nth(4).unwrap();
            if Path::new(target).starts_with(&self.directory) {
                rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).unwrap();
            }
        }
        std::fs::remove_dir_all(&self.directory).unwrap();
        assert!(std::thread::panicking() || left == 0, "{left} mounts are left");
    }
}

fn two_layers() -> Image {
    let mut image = Image::busybox();
    image.reference = "two:latest".to_owned();
    image.layer(vec![LayerFile::directory("d"), LayerFile::text("d/two", "2"), LayerFile::text("shared", "second")])
}

/// S-085: the engine's own snapshotter is stargz: pull, run, diff, commit, across the death of either daemon; nothing is left there.
#[test]
#[ignore = "needs stargz-snapshotter: run by `make compat`, which builds it"]
fn s085_stargz_keeps_the_engines_layers() {
    let mut stargz = Stargz::start("own");
    let registry = DockerRegistry::start();
    registry.put(&two_layers().docker_archive(), "two:1");
    let name = registry.name("two:1");
    let mut berth = Instance::start_with(&["--proxy-snapshotter", &stargz.address(), "--snapshotter", "stargz"]);
    berth.berth(&["pull", &name]).ok();
    assert_eq!(berth.berth(&["run", "--rm", &name, "cat", "/d/two", "/shared"]).ok(), "2second");
    berth.berth(&["run", "--name", "cc", &name, "sh", "-c", "echo new > /new; rm /shared"]).ok();
    assert_eq!(berth.berth(&["diff", "cc"]).ok(), "A /new\nD /shared");
    berth.berth(&["commit", "cc", "next"]).ok();
    berth.berth(&["run", "-d", "--name", "lives", "next", "sleep", "1000"]).ok();
    stargz.end(rustix::process::Signal::KILL);
    let refused = berth.berth(&["run", "--rm", "next", "true"]);
    assert!(refused.code == 125 && refused.stderr.contains("snapshotter stargz"), "{refused:?}");
    assert_eq!(berth.berth(&["exec", "lives", "cat", "/new"]).ok(), "new");
    stargz.spawn();
    assert_eq!(berth.berth(&["run", "--rm", "next", "cat", "/new"]).ok(), "new");
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.berth(&["exec", "lives", "cat", "/new"]).ok(), "new");
    berth.berth(&["rm", "-f", "cc", "lives"]).ok();
    berth.berth(&["rmi", "next", &name]).ok();
    let listed = || {
        let listed = berth.ctr_of(&stargz.socket(), &["-n", "berth", "snapshots", "--snapshotter", "stargz", "ls"]);
        (listed.ok().lines().count() == 1).then_some(())
    };
    wait_until("stargz keeps nothing of ours", listed);
    wait_until("nor a directory", || {
        let left = std::fs::read_dir(stargz.directory.join("root/snapshotter/snapshots")).unwrap().count();
        (left == 0).then_some(())
    });
}

/// S-085, S-115: an eStargz image, pulled lazily over containerd's API: no layer is fetched, the file system is stargz's.
#[test]
#[ignore = "needs stargz-snapshotter: run by `make compat`, which builds it"]
fn s115_stargz_pulls_lazily() {
    let mut stargz = Stargz::start("lazy");
    let registry = DockerRegistry::start();
    let mut berth = Instance::start_with(&["--proxy-snapshotter", &stargz.address(), "--gc-interval", "1"]);
    let archive = berth.directory.join("two.tar");
    std::fs::write(&archive, two_layers().docker_archive()).unwrap();
    berth.ctr(&["images", "import", archive.to_str().unwrap()]).ok();
    let name = registry.name("lazy:1");
    stargz.ctr_remote(&berth, &["images", "convert", "--estargz", "--oci", "docker.io/library/two:latest", &name]).ok();
    berth.ctr(&["images", "push", "--plain-http", &name]).ok();
    stargz.ctr_remote(&berth, &["-n", "far", "images", "rpull", "--plain-http", &name]).ok();
    assert_eq!(stargz.fuse_mounts(), 2, "a mount for each layer");
    let far = |berth: &Instance, words: &[&str]| berth.ctr(&[&["-n", "far"], words].concat());
    let blobs = far(&berth, &["content", "ls"]);
    assert_eq!(blobs.ok().lines().count(), 3, "manifest and config: {blobs:?}");
    let listed = far(&berth, &["snapshots", "--snapshotter", "stargz", "ls"]);
    assert_eq!(listed.ok().lines().filter(|line| line.contains("Committed")).count(), 2, "{listed:?}");
    let fifos = berth.directory.join("fifo").display().to_string();
    std::fs::create_dir_all(&fifos).unwrap();
    let cgroup = format!("{}/c1", berth.cgroup_parent());
    let words = ["run", "--rm", "--snapshotter", "stargz", "--fifo-dir", &fifos, "--cgroup", &cgroup, &name, "c1"];
    let words = [&words[..], &["cat", "/d/two", "/shared"]].concat();
    assert_eq!(far(&berth, &words).ok(), "2second");
    stargz.end(rustix::process::Signal::TERM);
    stargz.spawn();
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(far(&berth, &words).ok(), "2second", "it mounts them again");
    far(&berth, &["images", "rm", "--sync", &name]).ok();
    wait_until("its mounts go with the image", || (stargz.fuse_mounts() == 0).then_some(()));
}
