//! runtime-spec config, "POSIX-platform Hooks".

use std::fs;

use berth_testkit::wait_until;
use serde_json::{Value, json};

use crate::bundle::Container;
use crate::cgroup;
use crate::runtime::{Outcome, Runtime};

/// A hook that runs a script of the host's shell with the container's host folder as `$1`.
fn hook(container: &Container<'_>, script: &str) -> Value {
    let folder = container.host_folder("hooks");
    json!({"path": "/bin/sh", "args": ["sh", "-c", script, "hook", folder], "env": ["PATH=/usr/bin:/bin", "MARK=env of the hook"]})
}

fn log(container: &Container<'_>, name: &str) -> String {
    fs::read_to_string(container.directory.join("hooks").join(name)).unwrap_or_default()
}

pub fn run_in_order(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "echo program >>/h/log");
    let folder = container.host_folder("hooks");
    container.mount("/h", "bind", folder.to_str().unwrap(), &["bind"]);
    let outside = |stage: &str| {
        json!([
            hook(&container, &format!("echo {stage} >>$1/log")),
            hook(&container, &format!("echo {stage}2 >>$1/log"))
        ])
    };
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >>/h/log"]}]);
    let hooks = json!({
        "prestart": outside("prestart"), "createRuntime": outside("createRuntime"),
        "createContainer": outside("createContainer"), "startContainer": inside,
        "poststart": outside("poststart"), "poststop": outside("poststop"),
    });
    container.set("/hooks", hooks);
    container.create();
    let created = "prestart\nprestart2\ncreateRuntime\ncreateRuntime2\ncreateContainer\ncreateContainer2\n";
    // Poststart comes after start (runc 1.1 ran it after create already, and engines live with either).
    let begun = log(&container, "log");
    assert!([created.to_owned(), format!("{created}poststart\npoststart2\n")].contains(&begun), "{begun}");
    container.start();
    container.wait_for_status("stopped");
    // The program and poststart run beside each other.
    let log_after = log(&container, "log");
    let after = log_after.strip_prefix(created).unwrap();
    let after = after
        .strip_prefix("poststart\npoststart2\nstart")
        .map_or(after.to_owned(), |rest| format!("start{rest}poststart\npoststart2\n"));
    assert!(after.starts_with("startContainer\n") && after.contains("program\n"), "{after}");
    assert!(after.contains("poststart\npoststart2\n") || after.contains("poststart\nprogram\npoststart2\n"), "{after}");
    assert!(!after.contains("poststop"));
    container.verb(&["delete"]).ok();
    assert!(log(&container, "log").ends_with("poststop\npoststop2\n"));
    Ok(())
}

pub fn read_the_state(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 60");
    let save = |stage: &str| json!([hook(&container, &format!("cat >$1/{stage}"))]);
    let hooks = json!({"createRuntime": save("createRuntime"), "createContainer": save("createContainer"),
        "poststart": save("poststart"), "poststop": save("poststop")});
    container.set("/hooks", hooks).set("/annotations", json!({"org.example.key": "value"}));
    let pid = container.create_and_start();
    let state = |stage: &str| -> Value { serde_json::from_str(&log(&container, stage)).unwrap() };
    for (stage, statuses) in [
        ("createRuntime", ["creating", "created"]),
        ("createContainer", ["creating", "created"]),
        ("poststart", ["running", "created"]),
    ] {
        let state = state(stage);
        assert_eq!(state["id"], container.id, "{stage}");
        assert_eq!(state["bundle"], container.bundle().to_str().unwrap(), "{stage}");
        assert!(statuses.contains(&state["status"].as_str().unwrap()), "{stage}: {state}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{stage}");
    }
    assert_eq!(state("createRuntime")["pid"], pid);
    assert_eq!(state("poststart")["pid"], pid);
    container.call(&["kill", &container.id, "KILL"]).ok();
    container.wait_for_status("stopped");
    container.verb(&["delete"]).ok();
    assert_eq!(state("poststop")["status"], "stopped");
    Ok(())
}

pub fn get_their_environment(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    let hooks = json!({"createRuntime": [hook(&container, "env >$1/env; echo \"$0\" >$1/name")]});
    container.set("/hooks", hooks);
    assert_eq!(container.run().code, 0);
    let environment = log(&container, "env");
    assert!(environment.contains("MARK=env of the hook\n") && environment.contains("PATH=/usr/bin:/bin\n"));
    assert!(!environment.contains("BERTH_TEST_ROOT") && !environment.contains("LD_LIBRARY_PATH"), "{environment}");
    assert_eq!(log(&container, "name"), "hook\n");
    Ok(())
}

pub fn a_failure_undoes_create(runtime: &Runtime) -> Outcome {
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let mut container = Container::with_script(runtime, "echo ran");
        let hooks = json!({stage: [hook(&container, "echo why >&2; exit 1"), hook(&container, "touch $1/second")]});
        container.set("/hooks", hooks);
        let output = container.try_create(&[]);
        assert_ne!(output.code, 0, "{stage}");
        assert_eq!(container.call(&["list", "-q"]).stdout, "", "{stage}");
        assert!(!cgroup::is_left(&container), "{stage}");
        assert!(!container.directory.join("hooks/second").exists(), "{stage}: the first failure is the end");
    }
    Ok(())
}

pub fn a_late_hook_is_ended(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    let mut late = hook(&container, "echo $$ >$1/pid; exec sleep 100");
    late["timeout"] = json!(1);
    container.set("/hooks", json!({"createRuntime": [late]}));
    assert_ne!(container.try_create(&[]).code, 0);
    let pid = log(&container, "pid").trim().to_owned();
    wait_until("the hook is gone", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    Ok(())
}

pub fn see_the_right_mounts(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "true");
    let look = |stage: &str| json!([hook(&container, &format!("readlink /proc/self/ns/mnt >$1/{stage}"))]);
    let hooks = json!({"createRuntime": look("createRuntime"), "createContainer": look("createContainer")});
    container.set("/hooks", hooks);
    assert_eq!(container.run().code, 0);
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    assert_eq!(log(&container, "createRuntime").trim(), own, "the runtime's namespace");
    assert_ne!(log(&container, "createContainer").trim(), own, "the container's namespace, before its root is entered");
    Ok(())
}

pub fn poststop_after_delete(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 60");
    container.set(
        "/hooks",
        json!({"poststop": [hook(&container, "touch $1/stopped; exit 1"), hook(&container, "touch $1/second")]}),
    );
    container.create_and_start();
    container.verb(&["delete", "--force"]);
    assert!(container.directory.join("hooks/stopped").exists());
    assert_ne!(container.verb(&["state"]).code, 0, "a hook that fails late keeps nothing alive");
    Ok(())
}
