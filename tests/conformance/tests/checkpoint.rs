//! Checkpoint and restore through criu. `make peers` fetches criu of Debian 13; where it could not be fetched, or cannot work on the
//! kernel (`criu check`), the tests say so and what is left is that `runb` says so, too.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_conformance::console::{DescriptorSocket, read_until, type_line};
use berth_conformance::{Container, Runtime, cgroup};
use berth_testkit::{Output, wait_until};
use serde_json::json;

fn criu() -> Option<PathBuf> {
    let root = std::env::var_os("BERTH_PEERS")
        .map_or_else(|| berth_testkit::peers::workspace().join("target/peers"), PathBuf::from);
    let program = root.join("trixie/usr/sbin/criu");
    if !program.exists() {
        println!("does not apply: criu was not fetched (tests/fetch-criu.sh)");
        return None;
    }
    let works = Command::new(&program).arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    if !works.success() {
        println!("does not apply: criu check says that it cannot work here");
    }
    works.success().then_some(program)
}

/// A container that counts into a file of its own, away from our streams.
fn counter(runtime: &Runtime) -> Container<'_> {
    let mut container = Container::with_script(
        runtime,
        "i=0; while :; do i=$((i+1)); echo $i >/data/new; busybox mv /data/new /data/count; sleep 0.02; done",
    );
    let folder = container.host_folder("host");
    container.mount("/in", "bind", folder.to_str().unwrap(), &["bind"]);
    container.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    container.set("/linux/maskedPaths", json!(["/proc/timer_list", "/proc/acpi"]));
    container.set("/linux/readonlyPaths", json!(["/proc/sys"])).set("/linux/resources/pids", json!({"limit": 40}));
    container.write_config();
    let quiet = || fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let mut command = container.run_command(&["--detach"]);
    assert!(command.stdin(quiet()).stdout(quiet()).stderr(quiet()).status().unwrap().success());
    container
}

fn count(container: &Container<'_>) -> u64 {
    fs::read_to_string(container.rootfs().join("data/count")).unwrap_or_default().trim().parse().unwrap_or(0)
}

fn with_criu(container: &Container<'_>, criu: &std::path::Path, words: &[&str]) -> Output {
    let images = container.directory.join("images");
    let (verb, flags) = words.split_first().unwrap();
    let all =
        [&["--criu", criu.to_str().unwrap(), verb, "--image-path", images.to_str().unwrap()], flags, &[&container.id]]
            .concat();
    let mut command = container.command(&all);
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: done.status.code().unwrap_or(-1), stdout: text(&done.stdout), stderr: text(&done.stderr) }
}

#[test]
fn goes_on_where_it_was() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let container = counter(&runtime);
    let reached = wait_until("it counts", || Some(count(&container)).filter(|count| *count > 5));
    with_criu(&container, &criu, &["checkpoint", "--leave-running"]).ok();
    assert_eq!(container.status(), "running");
    with_criu(&container, &criu, &["checkpoint"]).ok();
    assert_ne!(container.verb(&["state"]).code, 0, "a saved container is gone");
    assert!(!cgroup::is_left(&container));
    let saved = count(&container);
    assert!(saved >= reached);
    let bundle = container.bundle();
    with_criu(&container, &criu, &["restore", "--detach", "--bundle", bundle.to_str().unwrap()]).ok();
    let after = wait_until("it goes on", || Some(count(&container)).filter(|count| *count > saved + 5));
    assert!(after < saved + 1000, "it goes on, and does not begin again");
    // A container like any other.
    assert_eq!(container.status(), "running");
    assert_eq!(cgroup::value(&container, "pids", "pids.max", "pids.max"), "40");
    assert_eq!(container.exec(&[], &["sh", "-c", "touch /in/x; cat /proc/timer_list | wc -c; exit 5"]).code, 5);
    assert!(container.directory.join("host/x").exists(), "the bind is the host's folder again");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("criu-root"));
    container.verb(&["pause"]).ok();
    container.verb(&["resume"]).ok();
    container.call(&["kill", &container.id, "KILL"]).ok();
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    assert!(!cgroup::is_left(&container));
}

#[test]
fn a_failed_restore_leaves_nothing() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let container = counter(&runtime);
    wait_until("it counts", || (count(&container) > 1).then_some(()));
    with_criu(&container, &criu, &["checkpoint"]).ok();
    for image in fs::read_dir(container.directory.join("images")).unwrap().flatten() {
        if image.file_name().to_string_lossy().starts_with("core-") {
            fs::write(image.path(), "not an image").unwrap();
        }
    }
    let bundle = container.bundle();
    let output = with_criu(&container, &criu, &["restore", "--detach", "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("cannot restore the container") && output.stderr.contains("restore.log"),
        "{output:?}"
    );
    assert_eq!(container.call(&["list", "-q"]).ok(), "");
    assert!(!cgroup::is_left(&container));
}

/// CVE-2026-119101, CVE-2026-115520: a container that puts a link where a bind of the host was is not saved, so no restore can bind
/// anything else there.
#[test]
fn a_moved_bind_is_refused() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "mkdir -p /data/way/in; sleep 60");
    let folder = container.host_folder("host");
    fs::create_dir_all(container.rootfs().join("data/way/in")).unwrap();
    container.mount("/data/way/in", "bind", folder.to_str().unwrap(), &["bind"]);
    container.create_and_start();
    // The way to the mount leads elsewhere now.
    let moved = "cd /data && mv way gone && mkdir other other/in && ln -s other way";
    assert_eq!(container.exec(&[], &["/bin/busybox", "sh", "-c", moved]).code, 0);
    let output = with_criu(&container, &criu, &["checkpoint"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("the container changed the way there"), "{}", output.stderr);
    assert_eq!(container.status(), "running");
}

#[test]
fn without_criu_it_says_so() {
    let runtime = Runtime::tested();
    let container = Container::with_script(&runtime, "sleep 60");
    container.create_and_start();
    let none = PathBuf::from("/no/such/criu");
    let output = with_criu(&container, &none, &["checkpoint"]);
    assert!(output.code == 1 && output.stderr.contains("criu is not installed"), "{output:?}");
    assert_eq!(container.status(), "running");
    let other = Container::beside(&container, "true");
    other.write_config();
    fs::create_dir_all(other.directory.join("images")).unwrap();
    let bundle = other.bundle();
    let output = with_criu(&other, &none, &["restore", "--detach", "--bundle", bundle.to_str().unwrap()]);
    assert!(output.code == 1 && output.stderr.contains("criu is not installed"), "{output:?}");
    assert_ne!(other.verb(&["state"]).code, 0);
}

/// `criu checkpoint` with a flag, before and after: without it criu says no and the container runs on; with it it is saved and restored.
fn only_with(container: &Container<'_>, criu: &std::path::Path, flag: &str, said_without: &str) {
    let refused = with_criu(container, criu, &["checkpoint"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot save the container"), "{refused:?}");
    assert!(refused.stderr.contains(said_without), "{refused:?}");
    assert_eq!(container.status(), "running");
    with_criu(container, criu, &["checkpoint", flag]).ok();
    assert_ne!(container.verb(&["state"]).code, 0, "a saved container is gone");
    let bundle = container.bundle();
    with_criu(container, criu, &["restore", "--detach", flag, "--bundle", bundle.to_str().unwrap()]).ok();
    assert_eq!(container.status(), "running");
}

fn run_detached(container: &Container<'_>, streams: [fs::File; 3]) {
    container.write_config();
    let mut command = container.run_command(&["--detach"]);
    let [stdin, stdout, stderr] = streams;
    assert!(command.stdin(stdin).stdout(stdout).stderr(stderr).status().unwrap().success());
}

fn null() -> fs::File {
    fs::File::options().read(true).write(true).open("/dev/null").unwrap()
}

/// A lock that the container held it holds again.
#[test]
fn file_locks_are_kept() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let container = Container::with_script(&runtime, "exec 9>/data/lock; flock 9; while :; do sleep 1; done");
    // The static busybox has none.
    for file in ["/usr/bin/flock", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"] {
        let place = container.rootfs().join(file.trim_start_matches('/').trim_start_matches("usr/"));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(file, place).unwrap();
    }
    run_detached(&container, [null(), null(), null()]);
    let lock = container.rootfs().join("data/lock");
    let is_held = || lock.exists() && fs::File::open(&lock).unwrap().try_lock().is_err();
    wait_until("it holds the lock", || is_held().then_some(()));
    only_with(&container, &criu, "--file-locks", "--file-locks");
    assert!(is_held());
    container.call(&["kill", &container.id, "KILL"]).ok();
    wait_until("its lock goes with it", || (!is_held()).then_some(()));
}

/// Connections inside the container go on. Where criu is older than what the kernel says of sockets (4.1 and Linux 6.16: no SO_PASSCRED of
/// those of the internet), its word on it is ours, and the container runs on.
#[test]
fn established_connections_are_kept() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let script = "busybox nc -ll -p 5000 -e /bin/cat & until cat /proc/net/tcp* | grep -q :1388; do sleep 0.1; done; \
                  (while :; do echo x; sleep 0.02; done) | busybox nc 127.0.0.1 5000 | \
                  while read word; do i=$((i+1)); echo $i >/data/new; busybox mv /data/new /data/count; done";
    let container = Container::with_script(&runtime, script);
    run_detached(&container, [null(), null(), null()]);
    wait_until("it counts", || (count(&container) > 5).then_some(()));
    let tried = with_criu(&container, &criu, &["checkpoint", "--leave-running", "--tcp-established"]);
    if tried.stderr.contains("Can't get 1:16 opt") {
        assert!(tried.code == 1 && tried.stderr.contains("cannot save the container"), "{tried:?}");
        assert_eq!(container.status(), "running");
        let reached = count(&container);
        wait_until("it goes on", || (count(&container) > reached + 5).then_some(()));
        println!("does not apply: this criu cannot save sockets of this kernel; that it says so was tested");
        return;
    }
    only_with(&container, &criu, "--tcp-established", "--tcp-established");
    let saved = count(&container);
    let after = wait_until("the connection goes on", || Some(count(&container)).filter(|count| *count > saved + 5));
    assert!(after < saved + 1000, "it goes on, and does not begin again");
}

/// A datagram socket of the host's stays connected.
#[test]
fn sockets_to_the_outside_are_connected_again() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "while :; do echo word; sleep 0.02; done");
    // Abstract names belong to the network namespace.
    let namespaces = container.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let address = SocketAddr::from_abstract_name(&container.id).unwrap();
    let ours = UnixDatagram::bind_addr(&address).unwrap();
    ours.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let theirs = UnixDatagram::unbound().unwrap();
    theirs.connect_addr(&address).unwrap();
    run_detached(&container, [null(), fs::File::from(std::os::fd::OwnedFd::from(theirs)), null()]);
    let mut word = [0; 16];
    let mut hear = || ours.recv(&mut word).map(|length| word[..length].to_vec());
    assert_eq!(hear().unwrap(), b"word\n");
    only_with(&container, &criu, "--ext-unix-sk", "--ext-unix-sk");
    // What was sent before is still there to be read.
    ours.set_nonblocking(true).unwrap();
    while hear().is_ok() {}
    ours.set_nonblocking(false).unwrap();
    assert_eq!(hear().unwrap(), b"word\n");
}

/// Memory before, the rest after it: where the kernel tells which memory changed. Where it does not, that is said, and nothing happens.
#[test]
fn memory_may_be_saved_before() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let container = counter(&runtime);
    wait_until("it counts", || (count(&container) > 1).then_some(()));
    for (parent, said) in [("/tmp", "must be relative"), ("../none", "no such directory in --image-path")] {
        let refused = with_criu(&container, &criu, &["checkpoint", "--pre-dump", "--parent-path", parent]);
        assert!(refused.code == 1 && refused.stderr.contains(said), "{refused:?}");
    }
    let tracked =
        Command::new(&criu).args(["check", "--feature", "mem_dirty_track"]).output().unwrap().status.success();
    let first = container.directory.join("first");
    let words = ["--criu", criu.to_str().unwrap(), "checkpoint", "--pre-dump", "--image-path", first.to_str().unwrap()];
    let before = container.verb(&words);
    assert_eq!(container.status(), "running");
    if !tracked {
        assert!(before.code == 1 && before.stderr.contains("does not track changed memory"), "{before:?}");
        assert!(!first.exists(), "nothing was begun");
        println!("does not apply: the kernel tracks no memory; that it says so was tested");
        return;
    }
    before.ok();
    with_criu(&container, &criu, &["checkpoint", "--parent-path", "../first"]).ok();
    assert!(fs::symlink_metadata(container.directory.join("images/parent")).unwrap().is_symlink());
    let saved = count(&container);
    let bundle = container.bundle();
    with_criu(&container, &criu, &["restore", "--detach", "--bundle", bundle.to_str().unwrap()]).ok();
    wait_until("it goes on", || (count(&container) > saved + 5).then_some(()));
}

/// A terminal is restored with its container; its new master goes to whoever listens at the console socket.
#[test]
fn a_terminal_is_restored() {
    let Some(criu) = criu() else { return };
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "echo ready; while read line; do echo got $line; done");
    container.set("/process/terminal", json!(true)).write_config();
    let bundle = container.bundle();
    let first = DescriptorSocket::listen(&container.directory.join("first"));
    let flags = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), "--console-socket", first.path()];
    container.verb(&flags).ok();
    let mut master = first.receive();
    read_until(&mut master, "ready");
    type_line(&mut master, "one");
    read_until(&mut master, "got one");
    with_criu(&container, &criu, &["checkpoint"]).ok();
    let second = DescriptorSocket::listen(&container.directory.join("second"));
    let words = ["restore", "--detach", "--bundle", bundle.to_str().unwrap(), "--console-socket", second.path()];
    with_criu(&container, &criu, &words).ok();
    let mut master = second.receive();
    type_line(&mut master, "two");
    read_until(&mut master, "got two");
    assert_eq!(container.status(), "running");
}
