//! Docker's verbs on containers that `ctr` made.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use berth_testkit::instance::run;
use berth_testkit::{Instance, wait_until};

use super::shims::{runc_root, with_debian_shims};
use super::{ctr_run, rows};

/// S-004: exec in all its forms, top, stats and a name for Docker's face; what cannot be is refused with its reason.
#[test]
fn s004_docker_verbs_on_ctr_containers() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d", "--env", "A=1"], "web", &["sleep", "1000"]).ok();
    let both = instance.berth(&["exec", "web", "sh", "-c", "echo $A; echo err >&2; exit 7"]);
    assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (7, "1\n", "err\n"), "{both:?}");
    assert_eq!(instance.berth_with_input(&["exec", "-i", "web", "cat"], b"in and out").ok(), "in and out");
    let words = ["exec", "-u", "1000:1000", "-w", "/tmp", "-e", "B=2", "web", "sh", "-c", "id -u; pwd; echo $B"];
    assert_eq!(instance.docker(&words).ok(), "1000\n/tmp\n2");
    let missing = instance.berth(&["exec", "web", "/no/such"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    let named = instance.berth(&["exec", "-u", "www", "web", "true"]);
    assert!(named.stderr.contains("exec --user with a name is not done for it: give numbers"), "{named:?}");
    instance.berth(&["exec", "-d", "web", "sh", "-c", "touch /tmp/detached"]).ok();
    wait_until("the detached process ran", || {
        (instance.berth(&["exec", "web", "test", "-e", "/tmp/detached"]).code == 0).then_some(())
    });
    assert!(instance.berth(&["top", "web"]).ok().contains("sleep 1000"));
    let stats = instance.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    assert_eq!(stats.ok(), "web 1");

    instance.berth(&["rename", "web", "shop"]).ok();
    assert_eq!(instance.inspect("shop", "{{.Id}} {{.Name}}"), "web /shop");
    assert_eq!(instance.berth(&["ps", "--format", "{{.Names}}"]).ok(), "shop");
    assert_eq!(rows(instance.ctr(&["tasks", "ls"]).ok())[0][0], "web");
    instance.sleeper("taken", &[]);
    let taken = instance.berth(&["rename", "shop", "taken"]);
    assert!(taken.stderr.contains("already in use"), "{taken:?}");
    for words in [&["logs", "shop"][..], &["start", "shop"], &["commit", "shop", "x"], &["cp", "shop:/etc/passwd", "-"]]
    {
        let refused = instance.berth(words);
        assert_ne!(refused.code, 0, "{words:?}");
        assert!(refused.stderr.contains("made through containerd's API"), "{words:?} {refused:?}");
    }
    instance.berth(&["kill", "shop"]).ok();
    instance.berth(&["rm", "shop"]).ok();
    assert_eq!(instance.ctr(&["containers", "ls", "-q"]).ok().lines().count(), 1);

    // A whole id comes before the beginning of another's, and a name is one container's.
    let taken = instance.inspect("taken", "{{.Id}}");
    let beginning = &taken[..7];
    ctr_run(&instance, &["-d"], beginning, &["sleep", "1000"]).ok();
    let refused = instance.berth(&["create", "--name", beginning, "busybox"]);
    assert!(refused.stderr.contains("already in use"), "{refused:?}");
    let refused = instance.berth(&["rename", "taken", beginning]);
    assert!(refused.stderr.contains("already in use"), "{refused:?}");
    instance.berth(&["rm", "-f", beginning]).ok();
    assert_eq!(instance.inspect("taken", "{{.State.Status}}"), "running");
    assert_eq!(instance.inspect(beginning, "{{.Name}}"), "/taken");
}

/// S-004: an attached client gets what comes after it; the container's pipes are its maker's still.
#[test]
fn s004_attach_to_ctr_containers() {
    let instance = Instance::with_busybox();
    let script = "trap 'echo caught' USR1; while :; do sleep 0.05; done";
    ctr_run(&instance, &["-d"], "web", &["sh", "-c", script]).ok();
    let mut command = instance.berth_command(&["attach", "--no-stdin", "--sig-proxy=false", "web"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || reader.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    wait_until("the client gets a line", || {
        instance.berth(&["kill", "-s", "USR1", "web"]).ok();
        lines.try_recv().ok().map(|line| assert_eq!(line, "caught"))
    });
    instance.berth(&["rm", "-f", "web"]).ok();
    child.wait().unwrap();
}

/// Other shims take pipes: a detached exec is done, one with a client is refused by the shim's name.
#[test]
fn exec_on_other_shims() {
    let instance = with_debian_shims();
    let root = runc_root(&instance);
    ctr_run(&instance, &["-d", "--runc-root", &root], "web", &["sleep", "1000"]).ok();
    let refused = instance.berth(&["exec", "web", "true"]);
    assert!(refused.stderr.contains("containerd-shim-runc-v2 takes pipes"), "{refused:?}");
    instance.berth(&["exec", "-d", "web", "touch", "/tmp/x"]).ok();
    let there =
        || run(instance.ctr_command(&["tasks", "exec", "--exec-id", "look", "web", "test", "-e", "/tmp/x"]), b"");
    wait_until("the detached process ran", || (there().code == 0).then_some(()));
    instance.berth(&["rm", "-f", "web"]).ok();
}
