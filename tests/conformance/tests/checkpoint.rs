//! Checkpoint and restore through criu. `make peers` fetches criu of Debian 13; where it could not be fetched, or cannot work on the
//! kernel (`criu check`), the tests say so and what is left is that `runb` says so, too.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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
    let mut container =
        Container::with_script(runtime, "i=0; while :; do i=$((i+1)); echo $i >/data/count; sleep 0.02; done");
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
