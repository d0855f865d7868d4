//! From create to delete.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_runtime::{Rootfs, Status};
use berth_types::{Classify, ErrorClass, Signal, report};
use serde_json::{Value, json};

use crate::support::{Bundle, own_cgroups, pipes, wait};

pub(super) fn spans_cover_every_step() {
    let mut bundle = Bundle::new().overlay();
    let running = bundle.start();
    let planned = berth_runtime::plan(&bundle.spec(), &Rootfs::Bundle).unwrap();
    let spans = running.spans.clone();
    assert_eq!(spans.len(), planned.len(), "{spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].start_ns <= pair[1].start_ns));
    assert_eq!(spans.last().unwrap().name, "execute");
    assert!(spans.iter().all(|span| span.start_ns > 0 && span.duration_ns < 10_000_000_000));
    running.finish();
}

pub(super) fn signals_and_exit_codes() {
    let mut bundle = Bundle::new().sh("trap 'exit 42' TERM; echo up; while true; do sleep 0.1; done");
    let running = bundle.start();
    running.await_line("up");
    running.container.kill(Signal::TERM).unwrap();
    assert_eq!(wait(&running.container.init), 42);
    let error = running.container.kill(Signal::TERM).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert_eq!(running.container.status(), Status::Stopped);
    running.container.delete().unwrap();
}

fn frozen(pid: u32) -> bool {
    let path = format!("/proc/{pid}/wchan");
    fs::read_to_string(path).is_ok_and(|text| text.contains("freez") || text.contains("refrigerator"))
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.contains(") D "))
}

pub(super) fn pause_and_resume() {
    let mut bundle = Bundle::new().sh("echo up; while true; do sleep 0.05; done");
    let running = bundle.start();
    running.await_line("up");
    running.container.pause().unwrap();
    assert_eq!(running.container.status(), Status::Paused);
    assert!(frozen(running.container.init.pid));
    running.container.resume().unwrap();
    assert_eq!(running.container.status(), Status::Running);
    running.container.pause().unwrap();
    // A frozen container can be deleted.
    running.container.delete().unwrap();
}

pub(super) fn kill_all_and_pids() {
    let mut bundle = Bundle::new().sh("for i in 1 2 3; do sleep 60 & done; echo up; wait");
    bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
    let running = bundle.start();
    running.await_line("up");
    assert_eq!(running.container.pids().unwrap().len(), 4);
    running.container.kill_all(Signal::KILL).unwrap();
    assert_eq!(wait(&running.container.init), 137);
    assert_eq!(running.container.pids().unwrap(), Vec::<u32>::new());
    running.container.delete().unwrap();
}

pub(super) fn limits_can_be_updated() {
    let mut bundle = Bundle::new().set("/linux/resources", json!({"pids": {"limit": 20}})).sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let resources = serde_json::from_value(json!({"pids": {"limit": 50}, "memory": {"limit": 33_554_432}})).unwrap();
    running.container.update(&resources).unwrap();
    let stats = running.container.cgroup().stats().unwrap();
    assert_eq!(stats.pids.limit, Some(50));
    assert_eq!(stats.memory.limit, Some(33_554_432));
    running.container.delete().unwrap();
}

pub(super) fn delete_is_thorough() {
    let mut bundle = Bundle::new().overlay().sh("(trap '' TERM; sleep 60) & echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let pids = running.container.pids().unwrap();
    assert!(!own_cgroups().is_empty());
    running.container.delete().unwrap();
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
    assert_eq!(own_cgroups(), Vec::<std::path::PathBuf>::new());
}

fn hook(dir: &Path, stage: &str, script: &str) -> Value {
    let path = dir.join(format!("hook-{stage}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    json!([{"path": path, "args": ["hook", stage], "env": ["PATH=/usr/bin:/bin", "MARK=1"]}])
}

pub(super) fn hooks_run_in_order() {
    let mut bundle = Bundle::new().sh("echo program");
    let dir = bundle.dir.path().to_owned();
    let log = dir.join("log");
    let script = format!("echo $1 $MARK $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >> {}", log.display());
    let mut hooks = serde_json::Map::new();
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        hooks.insert(stage.to_owned(), hook(&dir, stage, &script));
    }
    fs::write(bundle.rootfs().join("hook"), "#!/bin/sh\necho inside $1 $(hostname) $(cat) > /hook-was-here\n").unwrap();
    fs::set_permissions(bundle.rootfs().join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    hooks.insert(
        "startContainer".to_owned(),
        json!([{"path": "/hook", "args": ["hook", "start"], "env": ["PATH=/bin"]}]),
    );
    bundle.spec["hooks"] = Value::Object(hooks);
    assert_eq!(bundle.output(), "program\n");
    let expected = "prestart 1 creating\ncreateRuntime 1 creating\ncreateContainer 1 creating\npoststart 1 running\npoststop 1 stopped\n";
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
    let inside = fs::read_to_string(bundle.rootfs().join("hook-was-here")).unwrap();
    assert!(inside.starts_with("inside start berth-test ") && inside.contains("\"status\":\"created\""), "{inside}");
    assert!(inside.contains("\"pid\":1,"), "{inside}");
}

pub(super) fn a_failing_hook_undoes() {
    for stage in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::new();
        let mark = bundle.dir.path().join("after");
        let after = hook(bundle.dir.path(), "poststop", &format!("cat > {}", mark.display()));
        let failing = hook(bundle.dir.path(), stage, "echo went wrong >&2; exit 3");
        bundle.spec["hooks"] = json!({stage: failing, "poststop": after});
        let (stdio, _output) = pipes();
        let error = bundle.create_with(stdio, &mut Vec::new()).unwrap_err();
        let text = report(&error);
        assert!(text.contains(stage) && text.contains("exit status: 3: went wrong"), "{text}");
        assert_eq!(own_cgroups(), Vec::<std::path::PathBuf>::new());
        // Lifecycle, 3 to 5: on failure it goes on with the end, whose hooks run. (Those inside ran on no outer hook's account.)
        let ended = fs::read_to_string(mark).is_ok_and(|text| text.contains("\"status\":\"stopped\""));
        assert!(ended, "{stage}");
    }
}

/// Lifecycle, 9: the container is stopped.
pub(super) fn a_failing_hook_after_start_ends_it() {
    let mut bundle = Bundle::new().sh("sleep 60");
    bundle.spec["hooks"] = json!({"poststart": hook(bundle.dir.path(), "poststart", "exit 4")});
    let (stdio, _output) = pipes();
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    let error = container.start(&mut Vec::new()).unwrap_err();
    assert!(report(&error).contains("poststart"), "{}", report(&error));
    assert_eq!(wait(&container.init), 137);
    container.delete().unwrap();
}

/// Lifecycle, 13: a failure is a warning, and the others run.
pub(super) fn hooks_after_the_end_all_run() {
    let mut bundle = Bundle::new().sh("true");
    let dir = bundle.dir.path().to_owned();
    let mark = dir.join("mark");
    let mut hooks = hook(&dir, "poststop", "exit 5");
    fs::create_dir(dir.join("second")).unwrap();
    let second = hook(&dir.join("second"), "poststop", &format!("touch {}", mark.display()));
    hooks.as_array_mut().unwrap().extend(second.as_array().unwrap().clone());
    bundle.spec["hooks"] = json!({"poststop": hooks});
    let running = bundle.start();
    wait(&running.container.init);
    let warnings = running.container.delete_reporting().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("exit status: 5"), "{warnings:?}");
    assert!(mark.exists());
}

pub(super) fn hook_timeout() {
    let mut bundle = Bundle::new();
    let mut hooks = hook(bundle.dir.path(), "createRuntime", "exec sleep 60");
    hooks[0]["timeout"] = json!(1);
    bundle.spec["hooks"] = json!({"createRuntime": hooks});
    let (stdio, _output) = pipes();
    let error = bundle.create_with(stdio, &mut Vec::new()).unwrap_err();
    assert!(report(&error).contains("was killed after 1 s"), "{}", report(&error));
}

pub(super) fn created_waits_for_start() {
    let mut bundle = Bundle::new().sh("echo ran");
    let (stdio, output) = pipes();
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    assert_eq!(container.status(), Status::Created);
    assert_eq!(container.state().status, Status::Created);
    container.start(&mut Vec::new()).unwrap();
    assert_eq!(container.start(&mut Vec::new()).unwrap_err().class(), ErrorClass::FailedPrecondition);
    assert_eq!(crate::support::read_all(output), "ran\n");
    container.delete().unwrap();
    // A container that was never started leaves nothing either.
    let mut bundle = Bundle::new();
    let (stdio, _output) = pipes();
    bundle.create_with(stdio, &mut Vec::new()).unwrap().delete().unwrap();
}

pub(super) fn plan_is_stable() {
    let bundle = Bundle::new();
    let steps = berth_runtime::plan(&bundle.spec(), &Rootfs::Bundle).unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names.first(), Some(&"create-cgroup"));
    let position =
        |name: &str| names.iter().position(|found| *found == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    assert!(position("enter-cgroup") < position("unshare-cgroup-namespace"));
    assert!(position("mount") < position("enter-rootfs"));
    assert!(position("set-user") < position("set-capabilities"));
    assert_eq!(position("execute"), names.len() - 1);
    assert!(steps.iter().all(|step| !step.reason.is_empty()));
}
