//! S-140: the engine takes a shim that was written without it, from both faces.

use berth_testkit::wait_until;

use super::{Shims, ctr_run};

const TOY: &str = "containerd-shim-toy-v1";
const RUNTIME: &str = "io.containerd.toy.v1";

/// S-140: Docker's API: streams, exit codes, logs, exec, pause, a restart of the daemon, kill, removal.
#[test]
fn s140_under_dockers_api() {
    let shims = Shims::new(&[TOY]);
    let mut berth = shims.instance(&[]);
    let options = ["--runtime", RUNTIME];
    let ran = berth.busybox(&options, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{ran:?}");
    let cat = [&["run", "--rm", "-i"], &options[..], &["busybox", "cat"]].concat();
    assert_eq!(berth.berth_with_input(&cat, b"in and out").ok(), "in and out");
    let script = "echo line 1; while ! test -e /go; do sleep 0.05; done; echo line 2; exec sleep 1000";
    berth.berth(&[&["run", "-d", "--name", "c1"], &options[..], &["busybox", "sh", "-c", script]].concat()).ok();
    assert_eq!(berth.inspect("c1", "{{.HostConfig.Runtime}}"), RUNTIME);
    assert_eq!(berth.berth(&["exec", "c1", "sh", "-c", "echo joined; exit 4"]).code, 4);
    berth.berth(&["pause", "c1"]).ok();
    berth.berth(&["unpause", "c1"]).ok();
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.berth(&["exec", "c1", "touch", "/go"]).code, 0);
    wait_until("output after the restart is logged", || {
        (berth.berth(&["logs", "c1"]).ok() == "line 1\nline 2").then_some(())
    });
    berth.berth(&["kill", "c1"]).ok();
    assert_eq!(berth.berth(&["wait", "c1"]).ok(), "137");
    berth.berth(&["rm", "c1"]).ok();
    wait_until("the shim ends", || shims.processes(TOY).is_empty().then_some(()));
}

/// S-140: the same shim, asked directly, through containerd's API; by its name and by its path.
#[test]
fn s140_under_containerds_api() {
    let shims = Shims::new(&[TOY]);
    let berth = shims.instance(&[]);
    let path = shims.directory.join(TOY).display().to_string();
    for runtime in [RUNTIME, &path] {
        let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
        let ran = ctr_run(&berth, &["--rm", "--runtime", runtime], "c1", &words);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{ran:?}");
        ctr_run(&berth, &["-d", "--runtime", runtime], "c2", &["sleep", "1000"]).ok();
        let fifos = berth.directory.join("fifo").display().to_string();
        let exec = ["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", "e1"];
        assert_eq!(berth.ctr(&[&exec[..], &["c2", "echo", "joined"]].concat()).ok(), "joined");
        berth.ctr(&["tasks", "pause", "c2"]).ok();
        berth.ctr(&["tasks", "resume", "c2"]).ok();
        berth.ctr(&["tasks", "kill", "-s", "SIGKILL", "c2"]).ok();
        assert_eq!(berth.berth(&["wait", "c2"]).ok(), "137");
        berth.berth(&["rm", "c2"]).ok();
        wait_until("the shim ends", || shims.processes(TOY).is_empty().then_some(()));
    }
}
