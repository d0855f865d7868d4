//! A group of our own that is gone after the test, and processes that live in it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_cgroup::{Cgroup, Layout, Resources, plan};
use rustix::process::Pid;

/// How often a fork bomb is killed in one test; `BERTH_BOMBS=1000` is the long form.
pub(crate) fn bombs() -> u32 {
    std::env::var_os("BERTH_BOMBS").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(25)
}

pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// `/berth-test-<pid>-<name>/c`, removed with everything in it when dropped.
pub(crate) struct TestGroup {
    pub(crate) layout: Layout,
    pub(crate) parent: String,
    pub(crate) group: Cgroup,
    children: Vec<Child>,
}

impl TestGroup {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_layout(Layout::detect().expect("a host with cgroups"), name)
    }

    pub(crate) fn with_layout(layout: Layout, name: &str) -> Self {
        let parent = format!("/berth-test-{}-{name}", std::process::id());
        let group = Cgroup::create(&layout, &format!("{parent}/c")).expect("create (these tests need root)");
        Self { layout, parent, group, children: Vec::new() }
    }

    pub(crate) fn apply(&self, resources: &Resources) {
        let settings = plan(&self.layout, resources).expect("plan");
        self.group.apply(&settings).expect("apply");
    }

    /// A file of the group in the hierarchy of `controller` (the empty name is v2).
    pub(crate) fn file(&self, controller: &str, file: &str) -> PathBuf {
        let paths = self.group.paths();
        paths.get(controller).or_else(|| paths.get("")).expect("a hierarchy with the controller").join(file)
    }

    pub(crate) fn read(&self, controller: &str, file: &str) -> String {
        let path = self.file(controller, file);
        let text = std::fs::read_to_string(&path);
        assert!(text.is_ok(), "{}: {text:?}", path.display());
        text.unwrap_or_default().trim().to_owned()
    }

    /// Starts a shell that attaches itself through the group's descriptors and then runs `script`.
    pub(crate) fn spawn(&mut self, script: &str) -> Pid {
        let mut child = spawn_in(&self.group, script, Stdio::null());
        child.stdin.take().expect("pipe").write_all(b"\n").expect("let it go");
        let pid = Pid::from_child(&child);
        self.children.push(child);
        pid
    }

    /// Runs `script` in the group to its end: exit code (or minus the signal), standard error.
    pub(crate) fn run(&self, script: &str) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let mut child = spawn_in(&self.group, script, Stdio::piped());
        child.stdin.take().expect("pipe").write_all(b"\n").expect("let it go");
        let output = child.wait_with_output().expect("wait");
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().expect("code or signal"));
        (code, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn reap(&mut self) {
        for child in &mut self.children {
            child.wait().expect("wait");
        }
        self.children.clear();
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(Cgroup::open(&self.layout, &self.parent), Err(berth_cgroup::CgroupError::NotFound { .. }))
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        let killed = self.group.kill_all(berth_types::Signal::KILL, WAIT);
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        if let Ok(parent) = Cgroup::open(&self.layout, &self.parent) {
            let deleted = parent.delete(WAIT);
            if !std::thread::panicking() {
                killed.expect("kill");
                deleted.expect("delete");
                assert!(self.is_gone(), "{} is left behind", self.parent);
            }
        }
    }
}

fn spawn_in(group: &Cgroup, script: &str, stderr: Stdio) -> Child {
    let fds = group.attach_fds().expect("attach fds");
    let own = std::process::id();
    let paths = fds.iter().map(|fd| format!("/proc/{own}/fd/{}", fd.as_raw_fd()));
    let attach: String = paths.map(|path| format!("echo 0 > {path}; ")).collect();
    // It says when it is in, so the descriptors can be closed; then it waits to be let go.
    let script = format!("set -e; {attach}echo; read go; set +e; {script}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("sh");
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("pipe"), &mut byte).expect("attached");
    group.attach_unified(Pid::from_child(&child)).expect("attach to v2");
    child
}

/// Waits for a condition; the tests never decide by time, only give up.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT, "not within {WAIT:?}: {what}");
        moment(Duration::from_millis(2));
    }
}

pub(crate) fn moment(duration: Duration) {
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: duration.subsec_nanos().into() };
    rustix::event::poll(&mut [], Some(&timeout)).ok();
}

/// Whether a descriptor is readable now, or becomes so.
pub(crate) fn readable(fd: &impl std::os::fd::AsFd, timeout: Duration) -> bool {
    let seconds = i64::try_from(timeout.as_secs()).expect("short");
    let timeout = rustix::event::Timespec { tv_sec: seconds, tv_nsec: timeout.subsec_nanos().into() };
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).expect("poll") == 1
}

/// A disk of this machine as `(major, minor)`.
pub(crate) fn disk() -> (u32, u32) {
    let mut disks: Vec<String> = std::fs::read_dir("/sys/block")
        .expect("sysfs")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
        .filter(|name| !name.starts_with("loop") && !name.starts_with("ram"))
        .collect();
    disks.sort();
    let name = disks.first().expect("a disk");
    let dev = std::fs::read_to_string(Path::new("/sys/block").join(name).join("dev")).expect("dev");
    let (major, minor) = dev.trim().split_once(':').expect("major:minor");
    (major.parse().expect("number"), minor.parse().expect("number"))
}

/// Processes whose environment holds `mark`, zombies excepted.
pub(crate) fn marked(mark: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark.as_bytes())
        })
        .collect()
}
