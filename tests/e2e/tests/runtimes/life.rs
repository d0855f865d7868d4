//! One life for every runtime: run, exit codes, streams, logs, exec, terminal, pause, limits, stop, kill, restart of the daemon, removal.

use berth_testkit::{Instance, peers, wait_until};

use super::instance;

fn life(runtime: &str) {
    let mut berth = instance(&[]);
    let options = ["--runtime", runtime];
    run(&berth, &options);
    programs(&berth, &options);
    let name = format!("life-{}", berth.bridge());
    berth.berth(&[&["run", "-d", "--name", &name], &options[..], &["busybox", "sh", "-c", LOOP]].concat()).ok();
    assert_eq!(berth.inspect(&name, "{{.HostConfig.Runtime}}"), runtime);
    exec(&berth, &name);
    assert!(berth.berth(&["top", &name]).ok().contains("sleep"), "{:?}", berth.berth(&["top", &name]));
    pause_and_stats(&berth, &name);
    let pid = berth.pid(&name);
    wait_until("a line is logged", || berth.berth(&["logs", &name]).ok().contains("line 1").then_some(()));
    berth.kill_daemon();
    berth.spawn();
    assert_eq!((berth.inspect(&name, "{{.State.Status}}").as_str(), berth.pid(&name)), ("running", pid));
    assert_eq!(berth.berth(&["exec", &name, "echo", "again"]).ok(), "again");
    berth.berth(&["exec", &name, "touch", "/go"]).ok();
    wait_until("output after the restart is logged", || {
        berth.berth(&["logs", &name]).ok().ends_with("line 2").then_some(())
    });
    berth.berth(&["stop", &name]).ok();
    assert_eq!(berth.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    berth.berth(&["start", &name]).ok();
    berth.berth(&["kill", &name]).ok();
    assert_eq!(berth.berth(&["wait", &name]).ok(), "137");
    berth.berth(&["rm", &name]).ok();
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}

const LOOP: &str = "trap 'exit 7' TERM; echo line 1; while ! test -e /go; do sleep 0.1; done; echo line 2; \
                    while :; do sleep 0.1; done";

fn run(berth: &Instance, options: &[&str]) {
    let ran = berth.busybox(options, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{ran:?}");
    let input = [&["run", "--rm", "-i"], options, &["busybox", "cat"]].concat();
    assert_eq!(berth.berth_with_input(&input, b"in and out").ok(), "in and out");
    let terminal = berth.busybox(&[options, &["-t"]].concat(), &["sh", "-c", "test -t 0 && test -t 1 && tty"]);
    assert_eq!(terminal.ok().trim_end(), "/dev/pts/0");
    let seen =
        ["sh", "-c", "id -u; id -g; hostname; pwd; cat /proc/self/oom_score_adj; grep Seccomp: /proc/self/status"];
    let who = [options, &["-u", "user", "-h", "inside", "-w", "/tmp", "--oom-score-adj", "77"]].concat();
    assert_eq!(berth.busybox(&who, &seen).ok(), "1000\n1000\ninside\n/tmp\n77\nSeccomp:\t2", "{options:?}");
}

/// Exit codes of programs that cannot be executed.
fn programs(berth: &Instance, options: &[&str]) {
    for (words, code) in [(&["no-such-program"][..], 127), (&["/etc/passwd"], 126)] {
        let ended = berth.busybox(options, words);
        assert_eq!(ended.code, code, "{options:?} {words:?}: {ended:?}");
    }
}

fn exec(berth: &Instance, name: &str) {
    let ran = berth.berth(&["exec", name, "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (4, "out\n", "err\n"), "{ran:?}");
    assert_eq!(berth.berth_with_input(&["exec", "-i", name, "cat"], b"through").ok(), "through");
    assert_eq!(berth.berth(&["exec", "-u", "user", name, "id", "-u"]).ok(), "1000");
    let terminal = berth.berth(&["exec", "-t", name, "sh", "-c", "test -t 0 && test -t 1 && echo terminal"]);
    assert_eq!(terminal.ok().trim_end(), "terminal");
    let missing = berth.berth(&["exec", name, "no-such-program"]);
    assert_eq!(missing.code, 127, "{missing:?}");
}

fn pause_and_stats(berth: &Instance, name: &str) {
    // runc 1.1 gives up freezing a v1 group that forks meanwhile, and says so.
    wait_until("it is paused", || {
        let paused = berth.berth(&["pause", name]);
        assert!(paused.code == 0 || paused.stderr.contains("unable to freeze"), "{paused:?}");
        (paused.code == 0).then_some(())
    });
    assert_eq!(berth.inspect(name, "{{.State.Status}}"), "paused");
    berth.berth(&["unpause", name]).ok();
    assert_eq!(berth.inspect(name, "{{.State.Status}}"), "running");
    let stats = berth.berth(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", name]);
    let pids = stats.ok().rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    assert!(pids > 0, "{stats:?}");
    berth.berth(&["update", "--memory", "64m", "--memory-swap", "64m", name]).ok();
    assert_eq!(berth.inspect(name, "{{.HostConfig.Memory}}"), (64 << 20).to_string());
}

/// S-122: ours, for comparison.
#[test]
fn s122_native() {
    life("berth");
}

/// S-122, S-137: Debian's runc by its command line.
#[test]
fn s137_runc() {
    life("runc");
}

/// S-137: Debian's crun.
#[test]
fn s137_crun() {
    life("crun");
}

/// S-137: a runtime by its path: our own, as a command line.
#[test]
fn s137_runb_by_path() {
    life(peers::binaries().join("runb").to_str().unwrap());
}

/// S-139: Debian's containerd-shim-runc-v2 under Docker's API, behind our shim.
#[test]
fn s139_runc_shim() {
    life("io.containerd.runc.v2");
}
