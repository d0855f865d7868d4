//! runtime-spec runtime, "Lifecycle" and "Operations"; states and what each allows.

use std::fs;

use berth_testkit::wait_until;
use serde_json::json;

use crate::bundle::Container;
use crate::cgroup;
use crate::runtime::{Outcome, Runtime};

pub fn goes_from_created_to_stopped(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "echo began; read x; echo over");
    let pid = container.create();
    let state = container.state();
    assert_eq!((state["status"].as_str(), state["pid"].as_u64()), (Some("created"), Some(u64::from(pid))));
    assert_eq!(container.said(), "", "the program must wait for start");
    container.start();
    container.wait_for_status("stopped");
    assert!(container.said().starts_with("began"));
    assert_eq!(container.state()["pid"], 0);
    container.verb(&["delete"]).ok();
    assert_ne!(container.verb(&["state"]).code, 0);
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn refuses_what_does_not_fit_the_state(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "sleep 60");
    let refused = |words: &[&str], part: &str| {
        let output = container.verb(words);
        assert_ne!(output.code, 0, "{words:?} must fail");
        assert!(output.stderr.contains(part), "{words:?} says {:?}, not {part:?}", output.stderr);
    };
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps", "update", "events"] {
        refused(&[verb], "does not exist");
    }
    container.verb(&["delete", "--force"]).ok();
    container.create();
    let again = container.try_create(&[]);
    assert!(again.code != 0 && again.stderr.contains("already exists"), "{again:?}");
    refused(&["resume"], "not paused");
    container.start();
    refused(&["start"], "cannot start an already running container");
    refused(&["delete"], "is not stopped: running");
    container.verb(&["kill"]).ok();
    container.verb(&["kill", "--all"]).ok();
    container.call(&["kill", &container.id, "KILL"]);
    container.wait_for_status("stopped");
    refused(&["kill"], "container not running");
    refused(&["start"], "cannot start a container that has stopped");
    refused(&["pause"], "not running");
    let exec = container.exec(&[], &["true"]);
    assert!(exec.code != 0 && exec.stderr.contains("stopped"), "{exec:?}");
    Ok(())
}

pub fn refuses_bad_ids(runtime: &Runtime) -> Outcome {
    let container = Container::new(runtime);
    container.write_config();
    let bundle = container.bundle();
    for id in ["", "..", "a/b", "../up", "a b", "a\nb"] {
        let output = container.call(&["create", "--bundle", bundle.to_str().unwrap(), id]);
        assert_ne!(output.code, 0, "{id:?} must be refused");
    }
    assert!(!container.directory.join("up").exists());
    Ok(())
}

pub fn created_can_be_killed_and_deleted(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "echo ran");
    container.create();
    container.call(&["kill", &container.id, "KILL"]).ok();
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    container.create();
    container.verb(&["delete"]).ok();
    assert_eq!(container.said(), "", "the program never ran");
    assert!(!cgroup::is_left(&container));
    Ok(())
}

/// The first process of a PID namespace has only the signals it handles; one that waits for its start goes when it is told to.
pub fn created_goes_when_it_is_told_to(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "echo ran");
    for signal in ["TERM", "INT", "HUP"] {
        container.create();
        container.call(&["kill", &container.id, signal]).ok();
        container.wait_for_status("stopped");
        container.verb(&["delete"]).ok();
    }
    assert_eq!(container.said(), "", "the program never ran");
    Ok(())
}

pub fn run_gives_code_and_output(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "cat; echo err >&2; exit 42");
    container.write_config();
    let input = container.directory.join("input");
    fs::write(&input, "in\n").unwrap();
    let mut command = container.run_command(&[]);
    let output = command.stdin(fs::File::open(input).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"in\n"[..], &b"err\n"[..]));
    assert_ne!(container.verb(&["state"]).code, 0, "run deletes what it ran");
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn a_missing_program_leaves_nothing(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    container.set("/process/args", json!(["no-such-program"]));
    let output = container.run();
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("executable file not found in $PATH"), "{}", output.stderr);
    assert_eq!(container.call(&["list", "-q"]).ok(), "");
    assert!(!cgroup::is_left(&container));
    container.set("/process/args", json!(["/no/such/program"]));
    assert!(container.run().stderr.contains("no such file or directory"));
    let output = container.try_create(&[]);
    assert_ne!(output.code, 0, "create tells, not start");
    assert!(output.stderr.contains("no such file or directory"), "{output:?}");
    Ok(())
}

pub fn changes_after_create_have_no_effect(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "echo first; sleep 60");
    container.create();
    container
        .set("/process/args", json!(["/bin/echo", "second"]))
        .set("/hooks", json!({"poststart": [{"path": "/no"}]}));
    container.write_config();
    container.start();
    container.wait_for_said("first");
    assert_eq!(container.status(), "running");
    Ok(())
}

pub fn bad_bundles_leave_nothing(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    let bundle = container.bundle();
    let create = |container: &Container<'_>| container.call(&["create", "-b", bundle.to_str().unwrap(), &container.id]);
    assert_ne!(create(&container).code, 0, "there is no config.json");
    fs::write(bundle.join("config.json"), "{").unwrap();
    assert_ne!(create(&container).code, 0, "it is not JSON");
    for (pointer, value) in [
        ("/process/args", json!([])),
        ("/process/cwd", json!("relative")),
        ("/root/path", json!("no-such-rootfs")),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}])),
        ("/linux/namespaces", json!([{"type": "sky"}])),
    ] {
        let before = container.config.clone();
        container.set(pointer, value).write_config();
        assert_ne!(create(&container).code, 0, "{pointer} is wrong");
        container.config = before;
    }
    assert_ne!(container.call(&["create", "-b", "/no/such/bundle", &container.id]).code, 0);
    assert_eq!(container.call(&["list", "-q"]).stdout, "");
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn signals_by_name_and_number(runtime: &Runtime) -> Outcome {
    let script = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo term; exit 0' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let container = Container::with_script(runtime, script);
    container.create_and_start();
    container.wait_for_said("ready");
    for (signal, said) in [("USR1", "usr1"), ("SIGHUP", "hup"), ("1", "hup\nhup")] {
        container.call(&["kill", &container.id, signal]).ok();
        container.wait_for_said(said);
    }
    assert_ne!(container.call(&["kill", &container.id, "NOSUCH"]).code, 0);
    assert_eq!(container.status(), "running");
    container.verb(&["kill"]).ok();
    container.wait_for_status("stopped");
    assert!(container.said().ends_with("term\n"), "the default is TERM");
    Ok(())
}

pub fn kill_all_reaches_everybody(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 61 & sleep 62 & echo ready; wait");
    // Without a PID namespace of its own nothing ends with init.
    container.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    container.create_and_start();
    container.wait_for_said("ready");
    wait_until("both sleep", || (pids(&container).len() >= 3).then_some(()));
    container.call(&["kill", "--all", &container.id, "KILL"]).ok();
    wait_until("all are gone", || pids(&container).is_empty().then_some(()));
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    Ok(())
}

fn pids(container: &Container<'_>) -> Vec<u32> {
    let output = container.call(&["ps", "--format", "json", &container.id]);
    serde_json::from_str::<Option<Vec<u32>>>(&output.stdout).unwrap_or_default().unwrap_or_default()
}

pub fn delete_force_takes_everything(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 61 & sleep 62 & echo ready; wait");
    container.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    let pid = container.create_and_start();
    container.wait_for_said("ready");
    container.pause();
    container.verb(&["delete", "--force"]).ok();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn delete_needs_no_bundle(runtime: &Runtime) -> Outcome {
    // Nothing is executed any more once the root is taken away.
    let container = Container::with_script(runtime, "echo ready; while :; do :; done");
    container.create_and_start();
    container.wait_for_said("ready");
    fs::remove_dir_all(container.bundle()).unwrap();
    assert_eq!(container.status(), "running");
    container.call(&["kill", &container.id, "9"]).ok();
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn pause_and_resume(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "while :; do echo x; sleep 0.01; done");
    container.create_and_start();
    container.wait_for_said("x");
    container.pause();
    assert_eq!(container.status(), "paused");
    let length = container.said().len();
    let delete = container.verb(&["delete"]);
    assert!(delete.code != 0 && delete.stderr.contains("is not stopped: paused"), "{delete:?}");
    assert_eq!(container.said().len(), length, "a paused container does nothing");
    container.verb(&["resume"]).ok();
    assert_eq!(container.status(), "running");
    wait_until("it goes on", || (container.said().len() > length).then_some(()));
    assert_ne!(container.verb(&["resume"]).code, 0);
    Ok(())
}

pub fn detached_run_lives_on(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "echo up; sleep 60");
    container.write_config();
    let pid_file = container.directory.join("detached-pid");
    let out = fs::File::create(container.directory.join("out")).unwrap();
    let mut command = container.run_command(&["--detach", "--pid-file", pid_file.to_str().unwrap()]);
    assert!(command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap().success());
    container.wait_for_said("up");
    let pid: u64 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let state = container.state();
    assert_eq!((state["status"].as_str(), state["pid"].as_u64()), (Some("running"), Some(pid)));
    Ok(())
}

pub fn foreground_signals_reach_the_program(runtime: &Runtime) -> Outcome {
    let script = "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let container = Container::with_script(runtime, script);
    container.write_config();
    let out = fs::File::create(container.directory.join("out")).unwrap();
    let mut child = container.run_command(&[]).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    container.wait_for_said("ready");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(container.said().ends_with("term\n"));
    Ok(())
}

pub fn run_can_keep(runtime: &Runtime) -> Outcome {
    runtime.needs_flag("run", "--keep")?;
    let container = Container::with_script(runtime, "exit 3");
    container.write_config();
    assert_eq!(container.run_command(&["--keep"]).status().unwrap().code(), Some(3));
    assert_eq!(container.status(), "stopped");
    container.verb(&["delete"]).ok();
    Ok(())
}
