//! Processes added to a running container.

use berth_runtime::Stdio;
use berth_types::{Classify, ErrorClass};
use serde_json::json;

use super::namespaces::{KINDS, ns_inode};
use crate::support::{Bundle, pipes, process_value, wait};

/// S-161: the same limits, capabilities, filter, environment rules.
pub(super) fn s161_limits_and_rights_are_alike() {
    let script = "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ulimit -n; cat /proc/self/cgroup; pwd; umask";
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    let mut bundle = Bundle::new()
        .set("/linux/seccomp", filter)
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]))
        .set("/process/noNewPrivileges", json!(true))
        .set("/process/cwd", json!("/etc"))
        .sh(&format!("{script}; echo up; sleep 60"));
    let running = bundle.start();
    let own = running.await_line("up\n");
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["sh", "-c", script]);
    let (code, text) = running.exec(&process);
    assert_eq!((code, format!("{text}up\n")), (0, own));
    running.container.delete().unwrap();
}

/// S-163
pub(super) fn s163_joins_every_namespace() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let (stdio, _output) = pipes();
    let process = serde_json::from_value(process_value(&["sleep", "60"])).unwrap();
    let mut spans = Vec::new();
    let added = running.container.exec(&process, stdio, &mut spans).unwrap();
    let (init, exec) = (running.container.init.pid.to_string(), added.pid.to_string());
    for kind in KINDS {
        assert_eq!(ns_inode(&init, kind), ns_inode(&exec, kind), "{kind}");
    }
    let cgroups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(&init), cgroups(&exec));
    assert!(running.container.pids().unwrap().contains(&added.pid));
    assert_eq!(spans.last().unwrap().name, "execute");
    // Without a PID namespace fork in between: our child, seen by its own number inside.
    let status = std::fs::read_to_string(format!("/proc/{exec}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    assert_eq!(parent, std::process::id().to_string());
    let links = std::fs::read_dir(format!("/proc/{exec}/fd")).unwrap().count();
    assert_eq!(links, 3);
    running.container.kill(berth_types::Signal::KILL).unwrap();
    assert_eq!(wait(&added), 137);
    running.container.delete().unwrap();
}

pub(super) fn refused_when_paused_or_stopped() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let process = serde_json::from_value(process_value(&["true"])).unwrap();
    running.container.pause().unwrap();
    let error = running.container.exec(&process, pipes().0, &mut Vec::new()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert_eq!(error.to_string(), "the container is paused; resume it before a process joins");
    running.container.resume().unwrap();
    running.container.kill(berth_types::Signal::KILL).unwrap();
    wait(&running.container.init);
    let error = running.container.exec(&process, pipes().0, &mut Vec::new()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    running.container.delete().unwrap();
}

pub(super) fn terminal() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let mut value = process_value(&["sh", "-c", "tty; stty size"]);
    value["terminal"] = json!(true);
    let process = serde_json::from_value(value).unwrap();
    let stdio = Stdio::Terminal { rows: 11, columns: 22, keeps_newlines: false };
    let mut added = running.container.exec(&process, stdio, &mut Vec::new()).unwrap();
    assert_eq!(wait(&added), 0);
    let master = added.console.take().unwrap();
    // The last slave is closed: reading ends with EIO after what is left.
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n11 22\r\n");
    running.container.delete().unwrap();
}

pub(super) fn missing_program() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let process = serde_json::from_value(process_value(&["nothing-here"])).unwrap();
    let error = running.container.exec(&process, pipes().0, &mut Vec::new()).unwrap_err();
    assert_eq!(error.exec_failure(), Some(berth_runtime::ExecFailure::NotFound));
    assert!(running.container.pids().unwrap().contains(&running.container.init.pid));
    running.container.delete().unwrap();
}

pub(super) fn in_a_user_namespace() {
    let mut bundle = Bundle::new().user_ns().overlay().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let (code, text) =
        running.exec(&process_value(&["sh", "-c", "id -u; touch /x && stat -c %u /x; cat /proc/self/uid_map"]));
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "100000", "65536"]);
    running.container.delete().unwrap();
}

/// The session keyring is the container's, not the caller's: its keys would be within reach of what is executed.
pub(super) fn joins_the_keyring() {
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let name = format!("_ses.{}:", bundle.id);
    // How many hold each keyring of this name, by proc_keys(5).
    let holders = || -> Vec<u32> {
        let keys = std::fs::read_to_string("/proc/keys").unwrap();
        let own = keys.lines().filter(|line| line.contains(&name));
        own.map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
    };
    let before = holders();
    assert_eq!(before.len(), 1);
    let process = serde_json::from_value(process_value(&["sleep", "60"])).unwrap();
    // Several: what the start held of it may still be counted above, for the kernel lets go later.
    let added: Vec<_> = (0..8)
        .map(|_| {
            let (stdio, output) = pipes();
            (running.container.exec(&process, stdio, &mut Vec::new()).unwrap(), output)
        })
        .collect();
    let after = holders();
    assert!(after.len() == 1 && after[0] > before[0], "{before:?} and {after:?}");
    running.container.kill(berth_types::Signal::KILL).unwrap();
    for (process, _) in &added {
        wait(process);
    }
    running.container.delete().unwrap();
}
