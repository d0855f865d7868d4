//! What is asked of a container whose start is under way: its process speaks already, its start is not noted yet.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use berth_testkit::{Instance, Output, peers, wait_until};

use super::instance;

/// Runc, whose `start` does not return before somebody writes into a FIFO.
struct HeldRuntime {
    binary: PathBuf,
    gate: PathBuf,
}

impl HeldRuntime {
    fn new(directory: &Path) -> Self {
        let (binary, gate) = (directory.join("held-runc"), directory.join("gate"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let script = format!(
            "#!/bin/sh\n{} \"$@\" || exit $?\nfor word; do test \"$word\" != start || read -r go < {}; done\n",
            peers::peer("usr/bin/runc").display(),
            gate.display()
        );
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { binary, gate }
    }

    /// Returns once the one that is held has been let go.
    fn let_go(&self) {
        std::fs::write(&self.gate, "go\n").unwrap();
    }
}

fn exchange(socket: &Path, request: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// How many requests the engine has seen that wait for a start.
fn waiting(berth: &Instance) -> usize {
    let seen = std::fs::read_to_string(berth.directory.join("faults.seen")).unwrap_or_default();
    seen.lines().filter(|line| *line == "start.await!").count()
}

/// S-110, S-011: a signal, a resize, an exec, `top` and a container that joins namespaces wait for a start under way and are then served.
#[test]
fn s110_a_start_under_way_is_waited_for() {
    let berth = instance(&[]);
    let runtime = HeldRuntime::new(&berth.directory);
    let script = "trap 'echo got it' USR1; echo up; while :; do usleep 10000; done";
    let options = ["--name", "c1", "-t", "--ipc", "shareable", "--runtime", runtime.binary.to_str().unwrap()];
    std::fs::write(berth.fault_points(), "record").unwrap();
    let joining: &[&str] =
        &["run", "--rm", "--network", "container:c1", "--pid", "container:c1", "--ipc", "container:c1"];
    let joining =
        [joining, &["busybox", "sh", "-c", "for kind in net pid ipc; do readlink /proc/self/ns/$kind; done"]].concat();
    std::thread::scope(|scope| {
        let asked = |words: &'static [&'static str]| -> ScopedJoinHandle<'_, Output> {
            let berth = &berth;
            scope.spawn(move || berth.berth(words))
        };
        let starting =
            scope.spawn(|| berth.berth(&[&["run", "-d"], &options[..], &["busybox", "sh", "-c", script]].concat()));
        wait_until("the process speaks", || berth.berth(&["logs", "c1"]).stdout.contains("up").then_some(()));
        assert_eq!(berth.inspect("c1", "{{.State.Status}}"), "created", "its start is not noted");
        let joined = scope.spawn(|| berth.berth(&joining));
        let killed = asked(&["kill", "-s", "USR1", "c1"]);
        let executed = asked(&["exec", "c1", "echo", "here"]);
        let top = asked(&["top", "c1", "-o", "args"]);
        let resize = "POST /containers/c1/resize?h=33&w=99 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let resized = scope.spawn(|| exchange(&berth.socket(), resize));
        wait_until("all of them wait", || (waiting(&berth) == 5).then_some(()));
        for handle in [&killed, &executed, &top, &joined] {
            assert!(!handle.is_finished(), "one was answered before the start");
        }
        runtime.let_go();
        starting.join().unwrap().ok();
        killed.join().unwrap().ok();
        assert_eq!(executed.join().unwrap().ok(), "here");
        assert!(top.join().unwrap().ok().contains("trap"), "its process is listed");
        let resized = resized.join().unwrap();
        assert!(resized.starts_with("HTTP/1.1 200"), "{resized}");
        let pid = berth.pid("c1");
        let own = ["net", "pid", "ipc"].map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap());
        assert_eq!(joined.join().unwrap().ok(), own.map(|link| link.display().to_string()).join("\n"));
    });
    wait_until("the signal was handled", || berth.berth(&["logs", "c1"]).stdout.contains("got it").then_some(()));
    assert_eq!(berth.berth(&["exec", "c1", "stty", "-F", "/proc/1/fd/0", "size"]).ok().trim_end(), "33 99");
    std::fs::remove_file(berth.fault_points()).unwrap();
    berth.berth(&["rm", "-f", "c1"]).ok();
}

/// Containers that join each other's namespaces are refused, whichever is started first or both at once; nobody waits for ever.
#[test]
fn s011_containers_that_join_each_other() {
    let berth = Instance::with_busybox();
    berth.berth(&["create", "--name", "a1", "busybox"]).ok();
    berth.berth(&["create", "--name", "b1", "--network", "container:a1", "busybox"]).ok();
    berth.berth(&["rm", "a1"]).ok();
    berth.berth(&["create", "--name", "a1", "--network", "container:b1", "busybox"]).ok();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let both = ["a1", "b1"].map(|name| (name, scope.spawn(|| berth.berth(&["start", name]))));
            for (name, start) in both {
                let refused = start.join().unwrap();
                let is_known =
                    ["is not running", "join each other's namespaces"].iter().any(|w| refused.stderr.contains(w));
                assert!(refused.code != 0 && is_known, "start of {name}: {refused:?}");
            }
        });
    }
    berth.berth(&["rename", "a1", "c1"]).ok();
    berth.berth(&["rename", "b1", "a1"]).ok();
    berth.berth(&["rm", "c1"]).ok();
    let refused = berth.berth(&["start", "a1"]);
    assert!(refused.stderr.contains("cannot join its net namespace"), "a container that joins itself: {refused:?}");
}
