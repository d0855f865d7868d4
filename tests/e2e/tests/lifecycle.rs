//! The life of a container: states, signals, exit codes, restarts, events (checklist 1.8 and 1.9).

use std::fs;

use berth_testkit::{Instance, wait_until};

/// S-110, S-119: every transition of the state machine; illegal ones name the state and the way out.
#[test]
fn s110_states() {
    let berth = Instance::with_busybox();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    berth.berth(&["create", "--name", "c1", "busybox", "sh", "-c", script]).ok();
    let state = || berth.inspect("c1", "{{.State.Status}}");
    assert_eq!(state(), "created");
    for verb in ["pause", "unpause", "kill"] {
        let refused = berth.berth(&[verb, "c1"]);
        assert_eq!(refused.code, 125, "{verb} of a created container: {refused:?}");
        assert!(refused.stderr.contains("not running") || refused.stderr.contains("not paused"), "{refused:?}");
    }
    berth.berth(&["start", "c1"]).ok();
    assert_eq!(state(), "running");
    wait_until("the trap is set", || berth.berth(&["logs", "c1"]).stdout.contains("ready").then_some(()));
    let refused = berth.berth(&["rm", "c1"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("running"), "{refused:?}");
    berth.berth(&["pause", "c1"]).ok();
    assert_eq!(state(), "paused");
    berth.berth(&["unpause", "c1"]).ok();
    berth.berth(&["stop", "c1"]).ok();
    assert_eq!(berth.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    berth.berth(&["start", "c1"]).ok();
    berth.berth(&["restart", "-t", "0", "c1"]).ok();
    assert_eq!(state(), "running");
    berth.berth(&["rename", "c1", "d1"]).ok();
    assert_eq!(berth.berth(&["inspect", "c1"]).code, 125);
    berth.berth(&["rm", "-f", "d1"]).ok();
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}

/// Exit codes: the container's own, 126, 127, 125, and 128 + signal.
#[test]
fn exit_codes() {
    let berth = Instance::with_busybox();
    for (words, code) in [
        (&["sh", "-c", "exit 3"][..], 3),
        (&["true"], 0),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ] {
        let ended = berth.busybox(&[], words);
        assert_eq!(ended.code, code, "{words:?}: {ended:?}");
    }
    assert_eq!(berth.berth(&["run", "--rm", "no-such-image"]).code, 125);
    berth.sleeper("c1", &[]);
    for (words, code) in [(&["sh", "-c", "exit 4"][..], 4), (&["no-such-program"], 127), (&["/etc/passwd"], 126)] {
        let ended = berth.berth(&[&["exec", "c1"], words].concat());
        assert_eq!(ended.code, code, "exec {words:?}: {ended:?}");
        assert_eq!(code == 4, ended.stderr.is_empty(), "a failed exec says why: {ended:?}");
    }
    assert_eq!(
        berth.berth(&["ps", "-aq", "--filter", "status=created"]).ok(),
        "",
        "failed starts with --rm leave nothing"
    );
}

/// `--init` under the default seccomp filter, which refuses clone3: the program's words and code come through, orphans are reaped.
#[test]
fn init_under_the_default_filter() {
    let berth = Instance::with_busybox();
    let script = "(sleep 0 &) ; echo out; exit 7";
    let output = berth.busybox(&["--init", "--userns", "auto"], &["sh", "-c", script]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "out\n"), "{output:?}");
    assert_eq!(berth.busybox(&["--init"], &["no-such-program"]).code, 127);
}

/// S-134: the process gets exactly the signal, real-time ones too; stop sends its signal, then KILL.
#[test]
fn s134_signals() {
    let berth = Instance::with_busybox();
    let script = "trap 'echo USR1' USR1; trap 'echo RT' 37; trap 'echo TERM' TERM; trap 'echo QUIT; exit 5' QUIT; echo ready; while :; do sleep 0.05; done";
    berth.berth(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", script]).ok();
    let logged =
        |word: &str| wait_until(word, || berth.berth(&["logs", "c1"]).stdout.lines().any(|l| l == word).then_some(()));
    logged("ready");
    for (signal, word) in [("USR1", "USR1"), ("RTMIN+3", "RT"), ("15", "TERM")] {
        berth.berth(&["kill", "-s", signal, "c1"]).ok();
        logged(word);
    }
    berth.berth(&["stop", "-s", "QUIT", "-t", "10", "c1"]).ok();
    assert_eq!(berth.inspect("c1", "{{.State.ExitCode}}"), "5");
    berth
        .berth(&["run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
        .ok();
    berth.berth(&["stop", "-t", "0", "deaf"]).ok();
    assert_eq!(berth.inspect("deaf", "{{.State.ExitCode}}"), "137");
    let unknown = berth.berth(&["kill", "-s", "NONSENSE", "c1"]);
    assert!(unknown.stderr.contains("NONSENSE"), "{unknown:?}");
}

/// S-120, S-121: one event per change, in the legal order, numbered; a cursor resumes without gap or repeat.
#[test]
fn s120_events() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "--name", "c1", "busybox", "true"]).ok();
    berth.berth(&["rm", "c1"]).ok();
    let events = berth.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "type=container", "--json"]);
    let lines: Vec<serde_json::Value> = events.ok().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let actions: Vec<&str> = lines.iter().map(|e| e["Action"].as_str().unwrap()).collect();
    let only = |name: &str| {
        let places: Vec<usize> = actions.iter().enumerate().filter(|(_, a)| **a == name).map(|(n, _)| n).collect();
        assert_eq!(places.len(), 1, "{name} once in {actions:?}");
        places[0]
    };
    let order = ["create", "start", "die", "destroy"].map(only);
    assert!(order.windows(2).all(|p| p[0] < p[1]), "{actions:?}");
    let numbers: Vec<u64> = lines.iter().map(|e| e["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|p| p[0] < p[1]), "{numbers:?}");
}

/// Restart policies: on failure up to a count, always until told to stop.
#[test]
fn restart_policies() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "-d", "--name", "f1", "--restart", "on-failure:2", "busybox", "false"]).ok();
    wait_until("it gave up after two tries", || {
        (berth.inspect("f1", "{{.State.Status}} {{.RestartCount}}") == "exited 2").then_some(())
    });
    berth.berth(&["run", "-d", "--name", "a1", "--restart", "always", "busybox", "sh", "-c", "sleep 0.1"]).ok();
    wait_until("it was restarted", || {
        (berth.inspect("a1", "{{.RestartCount}}").parse::<u32>().unwrap() >= 2).then_some(())
    });
    berth.berth(&["stop", "-t", "0", "a1"]).ok();
    assert_eq!(berth.inspect("a1", "{{.State.Status}}"), "exited");
    let conflict = berth.berth(&["run", "-d", "--rm", "--restart", "always", "busybox", "true"]);
    assert_eq!(conflict.code, 125);
    assert!(conflict.stderr.contains("--rm"), "{conflict:?}");
}

/// S-131, S-132: the daemon is killed; containers run on, logs have no gap, exit codes of the meantime are right.
#[test]
fn s132_containers_outlive_the_daemon() {
    let mut berth = Instance::with_busybox();
    berth
        .berth(&[
            "run",
            "-d",
            "--name",
            "counter",
            "busybox",
            "sh",
            "-c",
            "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
        ])
        .ok();
    berth
        .berth(&[
            "run",
            "-d",
            "--name",
            "ends",
            "busybox",
            "sh",
            "-c",
            "while [ ! -e /go ]; do sleep 0.02; done; exit 42",
        ])
        .ok();
    berth.berth(&["run", "-d", "--rm", "--name", "short", "busybox", "sleep", "1000"]).ok();
    let (counter, ends) = (berth.pid("counter"), berth.pid("ends"));
    berth.kill_daemon();
    fs::write(format!("/proc/{ends}/root/go"), "").unwrap();
    wait_until("the container ended without a daemon", || {
        let stat = fs::read_to_string(format!("/proc/{ends}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z")).then_some(())
    });
    assert!(fs::exists(format!("/proc/{counter}")).unwrap(), "the other runs on");
    berth.spawn();
    assert_eq!(berth.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}"), "exited 42");
    assert_eq!(berth.inspect("counter", "{{.State.Status}}"), "running");
    assert_eq!(berth.pid("counter"), counter, "the same process");
    assert_eq!(berth.inspect("short", "{{.State.Status}}"), "running");
    assert_eq!(berth.berth(&["exec", "counter", "echo", "still here"]).ok(), "still here");
    wait_until("it wrote on", || (berth.berth(&["logs", "counter"]).ok().lines().count() > 10).then_some(()));
    berth.berth(&["stop", "-t", "0", "counter"]).ok();
    let log = berth.berth(&["logs", "counter"]);
    let numbers: Vec<usize> = log.ok().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line lost or doubled");
    berth.berth(&["kill", "short"]).ok();
    wait_until("--rm holds over the restart", || (berth.berth(&["inspect", "short"]).code != 0).then_some(()));
}

/// Many kills of the daemon while containers come and go: nothing is lost that was acknowledged, nothing is left.
#[test]
fn kill_the_daemon_again_and_again() {
    let mut berth = Instance::with_busybox();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let name = format!("c{round}0");
        let mut client = berth
            .berth_command(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed after ever longer: during create, during start, after.
        let start = std::time::Instant::now();
        wait_until("the moment has come", || (start.elapsed().as_millis() >= round * 4).then_some(()));
        berth.kill_daemon();
        if client.wait().unwrap().success() {
            acknowledged.push(name);
        }
        berth.spawn();
    }
    for name in acknowledged {
        assert_eq!(berth.inspect(&name, "{{.State.Status}}"), "running", "{name} was acknowledged");
    }
    for line in berth.berth(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().lines() {
        let state = line.split(' ').nth(1).unwrap();
        assert!(["running", "created", "exited"].contains(&state), "{line}");
    }
}

/// S-056: a frozen container can be ended, too: by `kill` and by a forced removal, without being thawed first by hand.
#[test]
fn s056_a_paused_container_ends() {
    let berth = Instance::with_busybox();
    for (name, end) in [("c1", &["rm", "-f", "c1"][..]), ("c2", &["kill", "c2"])] {
        berth.sleeper(name, &[]);
        berth.berth(&["pause", name]).ok();
        berth.berth(end).ok();
    }
    assert_eq!(berth.berth(&["wait", "c2"]).ok(), "137");
    assert_eq!(berth.berth(&["ps", "-aq", "--filter", "name=c1"]).ok(), "");
}
