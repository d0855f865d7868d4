//! What is told of containers and of the runtime itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Container;
use crate::cgroup;
use crate::runtime::{Outcome, Runtime};

pub fn state_document(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    container.set("/annotations", json!({"org.example.a": "b", "c": ""}));
    container.create();
    let state = container.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    assert_eq!(state["id"], container.id);
    assert_eq!(state["bundle"], container.bundle().to_str().unwrap());
    assert_eq!(state["rootfs"], container.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.a"], "b");
    assert!(state["created"].as_str().unwrap().starts_with("20"));
    assert_eq!(state["owner"], "");
    Ok(())
}

pub fn list_in_every_form(runtime: &Runtime) -> Outcome {
    let first = Container::with_script(runtime, "sleep 60");
    let pid = first.create_and_start();
    let second = Container::beside(&first, "true");
    second.create();
    let table = first.call(&["list"]).ok().to_owned();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row = lines.iter().find(|line| line[0] == first.id).unwrap();
    assert_eq!(row[1..4], [pid.to_string().as_str(), "running", first.bundle().to_str().unwrap()]);
    assert_eq!(row[5], "root");
    let entries: Vec<Value> = serde_json::from_str(first.call(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(entries.len(), 2);
    let entry = entries.iter().find(|entry| entry["id"] == second.id.as_str()).unwrap();
    assert_eq!((entry["status"].as_str(), entry["owner"].as_str()), (Some("created"), Some("root")));
    let mut ids = [first.id.as_str(), second.id.as_str()];
    ids.sort_unstable();
    assert_eq!(first.call(&["list", "-q"]).ok().lines().collect::<Vec<_>>(), ids);
    assert_ne!(first.call(&["list", "--format", "yaml"]).code, 0);
    drop(second);
    first.verb(&["delete", "-f"]).ok();
    assert_eq!(first.call(&["list", "--format", "json"]).ok(), "null");
    Ok(())
}

pub fn processes(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "sleep 61 & echo ready; wait");
    let pid = container.create_and_start();
    container.wait_for_said("ready");
    let pids: Vec<u32> = serde_json::from_str(container.call(&["ps", "-f", "json", &container.id]).ok()).unwrap();
    assert!(pids.contains(&pid));
    let table = container.verb(&["ps"]).ok().to_owned();
    assert!(table.lines().next().unwrap().contains("PID") && table.contains("sleep 61"), "{table}");
    assert_eq!(table.lines().count(), pids.len() + 1);
    let chosen = container.call(&["ps", &container.id, "-e", "-o", "pid,comm"]).ok().to_owned();
    assert!(chosen.lines().any(|line| line.trim().starts_with(&pid.to_string())), "{chosen}");
    Ok(())
}

pub fn stats(runtime: &Runtime) -> Outcome {
    cgroup::needs("memory")?;
    // Long enough for a kernel that counts CPU time by ticks.
    let mut container =
        Container::with_script(runtime, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; sleep 60");
    container
        .set("/linux/resources/memory", json!({"limit": 33_554_432}))
        .set("/linux/resources/pids", json!({"limit": 50}));
    container.create_and_start();
    container.wait_for_said("ready");
    let event: Value = serde_json::from_str(container.verb(&["events", "--stats"]).ok()).unwrap();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(container.id.as_str())));
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
    assert_eq!(data["memory"]["usage"]["limit"], 33_554_432);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0 && data["memory"]["raw"].is_object());
    assert_eq!((&data["pids"]["limit"], &data["pids"]["current"]), (&json!(50), &json!(1)));
    assert_ne!(container.verb(&["events", "--stats", "--interval", "0s"]).code, 0);
    Ok(())
}

pub fn events_tell_of_memory(runtime: &Runtime) -> Outcome {
    cgroup::needs("memory")?;
    let script = "while [ ! -e /data/go ]; do sleep 0.02; done; \
                  (x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' a); done) 2>/dev/null; sleep 60";
    let mut container = Container::with_script(runtime, script);
    container.set("/linux/resources/memory", json!({"limit": 8_388_608}));
    container.create_and_start();
    let mut events =
        container.command(&["events", "--interval", "50ms", &container.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["type"], "stats", "it watches");
    fs::write(container.rootfs().join("data/go"), "").unwrap();
    let oom = lines.find(|event| event["type"] == "oom").unwrap();
    assert_eq!(oom["id"], container.id);
    container.verb(&["delete", "--force"]).ok();
    let _rest = lines.count();
    events.wait().unwrap();
    Ok(())
}

pub fn features_document(runtime: &Runtime) -> Outcome {
    let features = runtime.features();
    assert!(features["ociVersionMin"].as_str().unwrap().starts_with("1.0"));
    assert!(runtime.spec_version() >= (1, 0));
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        runtime.needs("/hooks", hook).unwrap();
    }
    for option in ["bind", "rbind", "ro", "nosuid", "nodev", "noexec", "rprivate", "rro"] {
        runtime.needs("/mountOptions", option).unwrap();
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        runtime.needs("/linux/namespaces", kind).unwrap();
    }
    assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    Ok(())
}

pub fn spec_to_start_from(runtime: &Runtime) -> Outcome {
    let container = Container::new(runtime);
    let bundle = container.bundle().to_str().unwrap().to_owned();
    container.call(&["spec", "--bundle", &bundle]).ok();
    assert_ne!(container.call(&["spec", "-b", &bundle]).code, 0, "it must not overwrite");
    let mut config: Value = serde_json::from_slice(&fs::read(container.bundle().join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["root"]["path"], &config["process"]["args"]), (&json!("rootfs"), &json!(["sh"])));
    let kinds = |config: &Value| -> Vec<String> {
        config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(["pid", "network", "ipc", "uts", "mount"].iter().all(|kind| kinds(&config).iter().any(|k| k == kind)));
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "it runs"]);
    config["linux"]["cgroupsPath"] = container.config["linux"]["cgroupsPath"].clone();
    fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
    let output = container.run_command(&[]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it runs\n", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub fn rootless_spec(runtime: &Runtime) -> Outcome {
    let container = Container::new(runtime);
    container.call(&["spec", "--rootless", "--bundle", container.bundle().to_str().unwrap()]).ok();
    let config: Value = serde_json::from_slice(&fs::read(container.bundle().join("config.json")).unwrap()).unwrap();
    let linux = &config["linux"];
    assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    let namespaces = linux["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!({"type": "user"})) && !namespaces.contains(&json!({"type": "network"})));
    assert!(linux.get("resources").is_none());
    let sys = config["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/sys").unwrap().clone();
    assert_eq!(sys["source"], "/sys");
    Ok(())
}

pub fn log_lines(runtime: &Runtime) -> Outcome {
    let container = Container::new(runtime);
    let log = container.directory.join("log.json");
    let output = container.call(&["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nobody-here"]);
    assert_eq!(output.code, 1);
    let text = fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"));
    assert!(line["time"].as_str().unwrap().starts_with("20"));
    assert!(output.stderr.contains("does not exist"), "stderr says so, too: {}", output.stderr);
    assert_ne!(container.call(&["--log-format", "xml", "list"]).code, 0);
    Ok(())
}

pub fn version_and_help(runtime: &Runtime) -> Outcome {
    let container = Container::new(runtime);
    let version = container.call(&["--version"]).ok().to_owned();
    assert!(version.contains(" version ") && version.contains("\nspec: 1."), "{version}");
    let help = container.call(&["--help"]).ok().to_owned();
    for verb in [
        "create",
        "start",
        "run",
        "exec",
        "kill",
        "delete",
        "state",
        "list",
        "ps",
        "pause",
        "resume",
        "update",
        "spec",
        "features",
        "events",
        "checkpoint",
        "restore",
    ] {
        assert!(help.contains(verb), "{verb}");
        assert!(container.call(&[verb, "--help"]).ok().contains(verb));
    }
    assert_ne!(container.call(&["frobnicate"]).code, 0);
    assert_eq!(container.call(&["state"]).code, 1, "an id is missing");
    assert_eq!(container.call(&["state", "--no-such-flag", "x"]).code, 1);
    Ok(())
}
