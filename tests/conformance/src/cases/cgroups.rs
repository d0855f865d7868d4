//! Limits, and what update changes, as the kernel's files show them.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::bundle::Container;
use crate::cgroup::{directory, is_left, is_v2, needs, value};
use crate::runtime::{Outcome, Runtime};

pub fn memory_limit(runtime: &Runtime) -> Outcome {
    needs("memory")?;
    // The shell's child fills a variable until the kernel ends it.
    let script = "(x=; i=0; while [ $i -lt 40 ]; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' a); i=$((i+1)); done) 2>/dev/null; echo $?";
    let mut container = Container::with_script(runtime, script);
    container.set("/linux/resources/memory", json!({"limit": 8_388_608, "reservation": 4_194_304}));
    container.create();
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes", "memory.max"), "8388608");
    assert_eq!(value(&container, "memory", "memory.soft_limit_in_bytes", "memory.low"), "4194304");
    container.start();
    container.wait_for_status("stopped");
    assert!(container.said().ends_with("137\n"), "{}", container.said());
    Ok(())
}

pub fn pids_limit(runtime: &Runtime) -> Outcome {
    needs("pids")?;
    let mut container = Container::with_script(runtime, "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done");
    container.set("/linux/resources/pids", json!({"limit": 12}));
    container.create();
    assert_eq!(value(&container, "pids", "pids.max", "pids.max"), "12");
    container.start();
    container.wait_for_said("fork");
    Ok(())
}

pub fn cpu_limits(runtime: &Runtime) -> Outcome {
    needs("cpu")?;
    let mut container = Container::new(runtime);
    let mut limits = json!({"shares": 512, "quota": 50_000, "period": 100_000});
    if needs("cpuset").is_ok() {
        limits["cpus"] = json!("0");
    }
    container.set("/linux/resources/cpu", limits);
    container.create();
    if is_v2() {
        assert_eq!(value(&container, "cpu", "", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(value(&container, "cpu", "cpu.shares", ""), "512");
        assert_eq!(value(&container, "cpu", "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(value(&container, "cpu", "cpu.cfs_period_us", ""), "100000");
    }
    needs("cpuset")?;
    assert_eq!(value(&container, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    Ok(())
}

pub fn devices_are_denied(runtime: &Runtime) -> Outcome {
    let script = "mknod /data/kmsg c 1 11 && cat /data/kmsg 2>&1 | grep -o 'not permitted'; \
                  mknod /data/zero c 1 5 && head -c 2 /data/zero | wc -c; mknod /data/mem c 1 1 && head -c 1 /data/mem 2>&1 | grep -o 'not permitted'";
    let container = Container::with_script(runtime, script);
    assert_eq!(container.run().ok(), "not permitted\n2\nnot permitted");
    Ok(())
}

pub fn update_by_flags(runtime: &Runtime) -> Outcome {
    needs("memory")?;
    needs("pids")?;
    let mut container = Container::with_script(runtime, "sleep 60");
    container.set("/linux/resources/memory", json!({"limit": 33_554_432}));
    container.create_and_start();
    container
        .verb(&[
            "update",
            "--memory",
            "64M",
            "--pids-limit",
            "20",
            "--cpu-share",
            "256",
            "--cpu-quota",
            "40000",
            "--cpu-period",
            "80000",
        ])
        .ok();
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value(&container, "pids", "pids.max", "pids.max"), "20");
    if !is_v2() {
        assert_eq!(value(&container, "cpu", "cpu.shares", ""), "256");
        assert_eq!(value(&container, "cpu", "cpu.cfs_quota_us", ""), "40000");
    }
    container.verb(&["update", "--memory", "50331648", "--memory-reservation", "8M"]).ok();
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes", "memory.max"), "50331648");
    assert_eq!(value(&container, "pids", "pids.max", "pids.max"), "20", "what is not named stays");
    container.verb(&["update", "--memory", "-1", "--cpu-quota", "-1"]).ok();
    let unlimited = value(&container, "memory", "memory.limit_in_bytes", "memory.max");
    assert!(unlimited == "max" || unlimited.len() > 15, "{unlimited}");
    assert!(["max 80000", "-1"].contains(&value(&container, "cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(container.exec(&[], &["head", "-c", "1", "/dev/null"]).code, 0, "devices stay as they were");
    Ok(())
}

pub fn update_by_document(runtime: &Runtime) -> Outcome {
    needs("pids")?;
    let container = Container::with_script(runtime, "sleep 60");
    container.create_and_start();
    let document =
        json!({"pids": {"limit": 33}, "memory": {"limit": 41_943_040}, "devices": [{"allow": false, "access": "rwm"}]});
    let mut child =
        container.command(&["update", "--resources", "-", &container.id]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(value(&container, "pids", "pids.max", "pids.max"), "33");
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes", "memory.max"), "41943040");
    let file = container.directory.join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 34}}).to_string()).unwrap();
    container.verb(&["update", "-r", file.to_str().unwrap()]).ok();
    assert_eq!(value(&container, "pids", "pids.max", "pids.max"), "34");
    assert_eq!(container.exec(&[], &["sh", "-c", "echo x >/dev/null"]).code, 0, "devices are not changed by an update");
    Ok(())
}

pub fn update_refuses_nonsense(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "sleep 60");
    container.create_and_start();
    for flags in [["--memory", "lots"], ["--cpu-quota", "1x"], ["--cpu-share", "-1"], ["--resources", "/no/such/file"]]
    {
        assert_ne!(container.verb(&["update", flags[0], flags[1]]).code, 0, "{flags:?}");
    }
    assert_eq!(container.status(), "running");
    Ok(())
}

pub fn goes_with_the_container(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 60");
    let parent = format!("/berth-test/{}/deep/group", container.id);
    container.set("/linux/cgroupsPath", json!(parent));
    container.create_and_start();
    let made = directory(&container, "pids");
    let pids = fs::read_to_string(made.join("cgroup.procs")).unwrap();
    assert_eq!(pids.trim(), container.state()["pid"].to_string());
    container.verb(&["delete", "--force"]).ok();
    assert!(!is_left(&container));
    // Its parents are the engine's.
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for name in [format!("berth-test/{}/deep", container.id), format!("berth-test/{}", container.id)] {
            let _not_there = fs::remove_dir(controller.path().join(&name));
            let _not_there = fs::remove_dir(std::path::Path::new("/sys/fs/cgroup").join(&name));
        }
    }
    Ok(())
}

pub fn exec_joins_a_sub_group(runtime: &Runtime) -> Outcome {
    runtime.needs_flag("exec", "--cgroup")?;
    let container = Container::with_script(runtime, "sleep 60");
    container.create_and_start();
    let sub = directory(&container, "pids").join("sub");
    fs::create_dir(&sub).unwrap();
    let argument = if is_v2() { "sub" } else { "pids:sub" };
    let output = container.exec(&["--cgroup", argument], &["cat", "/proc/self/cgroup"]);
    let expected = format!("{}/sub", container.config["linux"]["cgroupsPath"].as_str().unwrap());
    assert!(output.ok().lines().any(|line| line.ends_with(&expected)), "{output:?}");
    assert_ne!(container.exec(&["--cgroup", if is_v2() { "none" } else { "pids:none" }], &["true"]).code, 0);
    Ok(())
}

pub fn unified_settings(runtime: &Runtime) -> Outcome {
    if !is_v2() {
        return Err("the host has no pure cgroup v2".to_owned());
    }
    let mut container = Container::new(runtime);
    container.set("/linux/resources/unified", json!({"memory.high": "12345344", "pids.max": "17"}));
    container.create();
    assert_eq!(value(&container, "memory", "", "memory.high"), "12345344");
    assert_eq!(value(&container, "pids", "", "pids.max"), "17");
    Ok(())
}
