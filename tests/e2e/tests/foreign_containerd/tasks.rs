//! A task's life, asked for by `ctr` and by `docker`.

use berth_testkit::containerd::Containerd;
use berth_testkit::instance::run;
use berth_testkit::{peers, wait_until};

use super::{RUNTIME, SHIM, shim, with_our_shim};

/// S-131, S-138, S-139: by the runtime's name: run, streams, exit code, exec, terminal, pause, metrics, kill, delete; and every event in its place.
#[test]
fn s139_by_name() {
    let containerd = with_our_shim();
    let mut events = containerd.ctr_command(&["events"]);
    let told = std::fs::File::create(containerd.directory.join("events")).unwrap();
    let mut events = events.stdout(told).spawn().unwrap();
    let read_events = || std::fs::read_to_string(containerd.directory.join("events")).unwrap();
    wait_until("events are followed", || {
        containerd.ctr(&["namespaces", "label", "default", "x=y"]).ok();
        read_events().contains("/namespaces/update").then_some(())
    });
    scenario(&containerd, RUNTIME);
    wait_until("the last event is told", || {
        (topics(&read_events(), "c2").last().map(String::as_str) == Some("/tasks/delete")).then_some(())
    });
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/delete",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    assert_eq!(topics(&read_events(), "c2"), expected, "{}", read_events());
    events.kill().unwrap();
    events.wait().unwrap();
}

/// Topics of a task's events, in order. containerd itself tells of the deletion of a task as well: those two count once.
fn topics(text: &str, id: &str) -> Vec<String> {
    let container = format!("\"container_id\":\"{id}\"");
    let lines = text.lines().filter(|line| line.contains(&container));
    let mut all: Vec<String> = lines
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned))
        .collect();
    all.dedup();
    all
}

/// S-138: by an absolute path, under another name than the rule's.
#[test]
fn s138_by_path() {
    let containerd = with_our_shim();
    let by_path = containerd.run(&["--rm", "--runtime", shim().to_str().unwrap()], "c1", &["echo", "by path"]);
    assert_eq!(by_path.ok(), "by path");
}

fn scenario(containerd: &Containerd, runtime: &str) {
    let options = ["--runtime", runtime];
    let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let ran = containerd.run(&[&options[..], &["--rm"]].concat(), "c1", &words);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{ran:?}");
    let cat = containerd.run_command(&[&options[..], &["--rm"]].concat(), "c1", &["cat"]);
    assert_eq!(run(cat, b"in and out").ok(), "in and out");
    terminal(containerd, &options);
    containerd.run(&[&options[..], &["-d"]].concat(), "c2", &["sleep", "1000"]).ok();
    assert_eq!(containerd.processes(SHIM).len(), 1);
    let fifos = containerd.fifo_dir();
    let exec = ["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", "e1", "c2", "sh", "-c", "echo joined; exit 5"];
    let joined = containerd.ctr(&exec);
    assert_eq!((joined.code, joined.stdout.as_str()), (5, "joined\n"), "{joined:?}");
    let status =
        || containerd.ctr(&["tasks", "ls"]).ok().lines().last().unwrap().split_whitespace().last().map(str::to_owned);
    containerd.ctr(&["tasks", "pause", "c2"]).ok();
    assert_eq!(status().as_deref(), Some("PAUSED"));
    containerd.ctr(&["tasks", "resume", "c2"]).ok();
    assert_eq!(status().as_deref(), Some("RUNNING"));
    let metrics = containerd.ctr(&["tasks", "metrics", "c2"]);
    assert!(metrics.ok().contains("memory.usage_in_bytes") || metrics.ok().contains("memory.usage"), "{metrics:?}");
    assert!(containerd.ctr(&["tasks", "ps", "c2"]).ok().lines().count() == 2);
    containerd.ctr(&["tasks", "kill", "-s", "SIGKILL", "c2"]).ok();
    let deleted = wait_until("the task can be deleted", || {
        let deleted = containerd.ctr(&["tasks", "rm", "c2"]);
        (!deleted.stderr.contains("must be stopped")).then_some(deleted)
    });
    assert!(deleted.stderr.contains("non-zero exit code 137"), "{deleted:?}");
    containerd.ctr(&["containers", "rm", "c2"]).ok();
    wait_until("the shim ends", || containerd.processes(SHIM).is_empty().then_some(()));
}

fn terminal(containerd: &Containerd, options: &[&str]) {
    let ctr = containerd.run_command(
        &[options, &["--rm", "-t"]].concat(),
        "tty",
        &["sh", "-c", "'tty; stty size; echo tty-ok'"],
    );
    let line: Vec<String> = std::iter::once(ctr.get_program())
        .chain(ctr.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut script = std::process::Command::new("script");
    let libraries = ctr.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").and_then(|(_, value)| value);
    script.env("LD_LIBRARY_PATH", libraries.unwrap());
    script.args(["-qec", &line.join(" "), "/dev/null"]);
    let ran = run(script, b"");
    assert!(ran.stdout.contains("/dev/pts/0") && ran.stdout.contains("tty-ok"), "{ran:?}");
}

/// S-137, S-139: Debian's dockerd on a containerd that finds our shim where it looks for runc's: dockerd's own runc and a runtime of the
/// operator's (`--add-runtime`) are both driven by our shim.
#[test]
fn s137_under_debians_dockerd() {
    let bin = berth_testkit::instance::test_root().join(format!("berth-test-shim-{}", std::process::id()));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(shim(), bin.join("containerd-shim-runc-v2")).unwrap();
    let mut containerd = Containerd::start(&bin);
    let runb = format!("ours={}", peers::binaries().join("runb").display());
    containerd.start_dockerd(&["--add-runtime", &runb]);
    containerd.docker(&["load"], &berth_testkit::Image::busybox().docker_archive()).ok();
    for runtime in ["runc", "ours"] {
        let docker = |words: &[&str]| containerd.docker(words, b"");
        let options = ["--runtime", runtime, "--network", "none"];
        let ran = docker(
            &[&["run", "--rm"], &options[..], &["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]].concat(),
        );
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"), "{runtime}: {ran:?}");
        docker(&[&["run", "-d", "--name", "c1"], &options[..], &["busybox", "sleep", "1000"]].concat()).ok();
        assert_eq!(docker(&["exec", "c1", "echo", "joined"]).ok(), "joined");
        docker(&["pause", "c1"]).ok();
        docker(&["unpause", "c1"]).ok();
        assert!(docker(&["top", "c1"]).ok().contains("sleep"));
        docker(&["kill", "c1"]).ok();
        assert_eq!(docker(&["wait", "c1"]).ok(), "137");
        docker(&["rm", "c1"]).ok();
        wait_until("the shim ends", || containerd.processes("containerd-shim-runc-v2").is_empty().then_some(()));
    }
    drop(containerd);
    std::fs::remove_dir_all(bin).unwrap();
}
