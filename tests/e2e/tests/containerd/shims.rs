//! Shims of others under our daemon, by every way to name one.

use berth_testkit::{Instance, peers, wait_until};

use super::client::{Client, block_on};
use super::{ctr_exec, ctr_run, rows};

/// A daemon that finds Debian's shims and runc on its PATH.
pub(super) fn with_debian_shims() -> Instance {
    let directory = peers::peer("usr/bin/containerd-shim-runc-v2").parent().unwrap().to_owned();
    let instance = Instance::start_on_path(&directory);
    instance.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    instance
}

/// runc's state, else shared by all tests of the machine.
pub(super) fn runc_root(instance: &Instance) -> String {
    instance.directory.join("runc").display().to_string()
}

/// S-139: the same scenario on another's shim: run, I/O, exec, pause, kill, exit code, events, removal.
fn scenario(instance: &Instance, options: &[&str], binary: &str) {
    let root = runc_root(instance);
    let options = [options, &["--runc-root", &root]].concat();
    let options = options.as_slice();
    let ran = ctr_run(instance, &[options, &["--rm"]].concat(), "c1", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{ran:?}");
    ctr_run(instance, &[options, &["-d"]].concat(), "c2", &["sleep", "1000"]).ok();
    let shims: Vec<String> = shim_processes(instance, binary);
    assert_eq!(shims.len(), 1, "{shims:?}");
    assert_eq!(ctr_exec(instance, "c2", "e1", &["echo", "joined"]).ok(), "joined");
    instance.ctr(&["tasks", "pause", "c2"]).ok();
    assert_eq!(rows(instance.ctr(&["tasks", "ls"]).ok())[0][2], "PAUSED");
    instance.ctr(&["tasks", "resume", "c2"]).ok();
    assert_eq!(instance.inspect("c2", "{{.State.Status}}"), "running");
    instance.ctr(&["tasks", "kill", "-s", "SIGKILL", "c2"]).ok();
    assert_eq!(instance.berth(&["wait", "c2"]).ok(), "137");
    instance.berth(&["rm", "c2"]).ok();
    wait_until("the shim ends", || shim_processes(instance, binary).is_empty().then_some(()));
    let kept = instance.berth(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=c2",
        "--format",
        "{{.Action}}",
    ]);
    let words: Vec<&str> = kept.ok().lines().collect();
    assert_eq!(
        words,
        ["create", "start", "exec_create", "exec_start", "exec_die", "pause", "unpause", "die", "destroy"]
    );
}

fn shim_processes(instance: &Instance, binary: &str) -> Vec<String> {
    let mut found = Vec::new();
    let socket = instance.containerd_socket().display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(binary) && line.contains(&socket) {
            found.push(line);
        }
    }
    found
}

/// S-131, S-138, S-139: Debian's containerd-shim-runc-v2 with runc, named by its runtime and by its path.
#[test]
fn s139_runc_shim() {
    let instance = with_debian_shims();
    scenario(&instance, &["--runtime", "io.containerd.runc.v2"], "containerd-shim-runc-v2");
    let path = peers::peer("usr/bin/containerd-shim-runc-v2");
    let id = format!("c3-{}", instance.bridge());
    let named = ctr_run(&instance, &["--rm", "--runtime", path.to_str().unwrap()], &id, &["echo", "by path"]);
    assert_eq!(named.ok(), "by path");
}

/// S-132: a shim of others, too, outlives the daemon and is found again.
#[test]
fn s132_other_shims_outlive_the_daemon() {
    let mut instance = with_debian_shims();
    let root = runc_root(&instance);
    ctr_run(&instance, &["-d", "--runc-root", &root], "c1", &["sleep", "1000"]).ok();
    let before = instance.ctr(&["tasks", "ls"]);
    instance.kill_daemon();
    instance.spawn();
    assert_eq!(instance.ctr(&["tasks", "ls"]).ok(), before.ok());
    assert_eq!(ctr_exec(&instance, "c1", "e1", &["echo", "again"]).ok(), "again");
    instance.berth(&["rm", "-f", "c1"]).ok();
}

/// S-137: our own shim, in the place of runc's where that is not installed, drives the runtime that the options name, with its state where
/// they say.
#[test]
fn s137_binary_name_under_our_own_shim() {
    let instance = Instance::with_busybox();
    let runc = peers::peer("usr/bin/runc").display().to_string();
    let root = runc_root(&instance);
    let options = ["--runc-binary", &runc, "--runc-root", &root];
    let ran = ctr_run(&instance, &[&options[..], &["--rm"]].concat(), "c1", &["sh", "-c", "echo out; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "out\n"), "{ran:?}");
    ctr_run(&instance, &[&options[..], &["-d"]].concat(), "c2", &["sleep", "1000"]).ok();
    assert!(std::path::Path::new(&root).join("default/c2").exists(), "runc keeps its state there");
    assert_eq!(ctr_exec(&instance, "c2", "e1", &["echo", "joined"]).ok(), "joined");
    instance.berth(&["rm", "-f", "c2"]).ok();
}

/// S-137: while a runtime's command is at work (a hook in it, say), the shim answers whoever asks, and the container becomes what it was to be.
#[test]
fn s137_a_slow_runtime_blocks_nobody() {
    let instance = Instance::with_busybox();
    let (gate, script) =
        slow_runc(&instance, "*' start '*) : >GATE.here; until [ -e GATE ]; do sleep 0.05; done; exec RUNC \"$@\";;");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| ctr_run(&instance, &["--runc-binary", &script, "-d"], "c1", &["sleep", "1000"]));
        berth_testkit::wait_until("the command is at work", || gate.with_extension("here").exists().then_some(()));
        let listed = instance.ctr(&["tasks", "ls"]).ok().to_owned();
        let is_started = running.is_finished();
        std::fs::write(&gate, "").unwrap();
        assert!(listed.contains("CREATED") && !is_started, "{listed}");
        running.join().unwrap().ok();
    });
    assert!(instance.ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
    instance.berth(&["rm", "-f", "c1"]).ok();
}

/// S-120, S-137: the end of a container is told after its start, also when the runtime's `start` goes on for longer than the container: Docker
/// takes no notice of an end that comes first, and has a container then that runs for ever.
#[test]
fn s137_an_end_during_the_start_is_told_after_it() {
    let instance = Instance::with_busybox();
    let (gate, script) = slow_runc(
        &instance,
        "*' start '*) RUNC \"$@\"; code=$?; : >GATE.here; until [ -e GATE ]; do sleep 0.05; done; exit $code;;",
    );
    std::thread::scope(|scope| {
        let running = scope.spawn(|| ctr_run(&instance, &["--runc-binary", &script, "--rm"], "c1", &["true"]));
        wait_until("the command is at work", || gate.with_extension("here").exists().then_some(()));
        let listed = instance.ctr(&["tasks", "ls"]);
        let process = format!("/proc/{}", rows(listed.ok())[0][1]);
        wait_until("the container has ended", || (!std::path::Path::new(&process).exists()).then_some(()));
        std::fs::write(&gate, "").unwrap();
        running.join().unwrap().ok();
    });
    let topics = block_on(async { Client::connect(&instance, "default").await.topics().await });
    let told: Vec<&String> = topics.iter().filter(|topic| topic.starts_with("/tasks/")).collect();
    assert_eq!(told, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

/// A runtime that is runc but for what it does in these arms of a shell's `case` on its words, in which GATE and RUNC stand for those; the gate.
fn slow_runc(instance: &Instance, arms: &str) -> (std::path::PathBuf, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let (gate, script) = (instance.directory.join("gate"), instance.directory.join("slow-runc"));
    let runc = peers::peer("usr/bin/runc").display().to_string();
    let arms = arms.replace("GATE", &gate.display().to_string()).replace("RUNC", &runc);
    std::fs::write(&script, format!("#!/bin/sh\ncase \" $* \" in {arms} esac\nexec {runc} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (gate, script.display().to_string())
}

/// A runtime that is nowhere is refused by name, and options that our own shim does not obey are, too.
#[test]
fn refusals() {
    let instance = Instance::with_busybox();
    let missing = ctr_run(&instance, &["--runtime", "io.containerd.kata.v2"], "c1", &["true"]);
    assert!(missing.stderr.contains("containerd-shim-kata-v2"), "{missing:?}");
    let other = ctr_run(&instance, &["--runc-binary", "crun"], "c2", &["true"]);
    assert!(other.stderr.contains("no runtime crun in "), "{other:?}");
    for id in instance.ctr(&["containers", "ls", "-q"]).ok().lines() {
        instance.ctr(&["containers", "rm", id]).ok();
    }
    assert_eq!(instance.ctr(&["tasks", "ls", "-q"]).ok(), "");
}
