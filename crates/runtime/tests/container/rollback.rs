//! S-155: whatever step fails, nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use berth_runtime::{Container, ExecTuning, Fault, StateDir, Tuning};
use berth_types::Timestamp;
use serde_json::json;

use crate::support::{Bundle, own_cgroups, pipes, process_value};

/// What a failed operation could leave of this process and its host.
#[derive(Debug, PartialEq)]
struct Picture {
    descriptors: usize,
    children: String,
    mounts: String,
    cgroups: Vec<PathBuf>,
    states: Vec<PathBuf>,
    namespaces: Vec<PathBuf>,
}

fn picture(states: &Path) -> Picture {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let states: Vec<PathBuf> = fs::read_dir(states).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    Picture {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        children: fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap(),
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
        cgroups: own_cgroups(),
        states,
        // Where the caller stands: it lends its own namespaces while it clones.
        namespaces: ["net", "ipc", "uts", "pid_for_children", "mnt", "user"].map(own).to_vec(),
    }
}

fn everyday() -> Bundle {
    Bundle::new()
        .overlay()
        .mount(json!({"destination": "/from-host", "type": "bind", "source": "/etc/passwd", "options": ["bind", "ro"]}))
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]))
        .set("/process/oomScoreAdj", json!(100))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/process/noNewPrivileges", json!(true))
}

/// Everything a document can ask for that this host has.
fn elaborate() -> Bundle {
    let mut bundle = everyday().user_ns();
    let program = bundle.dir.path().join("hook");
    fs::write(&program, "#!/bin/sh\ncat > /dev/null\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let hook = json!([{"path": program}]);
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    bundle.spec["hooks"] = names.iter().map(|name| ((*name).to_owned(), hook.clone())).collect();
    bundle.spec["hooks"]["startContainer"] = json!([{"path": "/bin/true"}]);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 100}});
    bundle.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_DEFAULT"});
    bundle.spec["linux"]["rootfsPropagation"] = json!("shared");
    bundle.spec["linux"]["devices"] = json!([{"path": "/dev/fifo", "type": "p"}]);
    bundle.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    bundle.spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 19});
    bundle.spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 5});
    bundle.spec["root"]["readonly"] = json!(true);
    bundle.spec["domainname"] = json!("d");
    bundle.mount(json!({"destination": "/mapped", "type": "bind", "source": "/etc", "options": ["rbind", "ridmap"]}))
}

/// Fails each step of create and start in turn, until the number is past the last; the names of those that failed.
fn fail_every_step(mut bundle: Bundle) -> BTreeSet<String> {
    let states = bundle.dir.path().join("states");
    let mut failed_in: BTreeSet<String> = BTreeSet::new();
    for step in 0.. {
        bundle.renew();
        let (stdio, output) = pipes();
        let before = picture(&states);
        let directory = StateDir::create(&states, &bundle.id.parse().unwrap()).unwrap();
        let start_listener = Some(directory.start_listener().unwrap());
        bundle.tuning = Tuning { fault: Some(Fault(step)), start_listener, ..Tuning::default() };
        let rootfs = bundle.rootfs();
        let error = match bundle.create_with(stdio, &mut Vec::new()) {
            Err(error) => {
                directory.remove().unwrap();
                Some(error)
            }
            Ok(mut container) => {
                container.save(&directory, &rootfs, Timestamp::now()).unwrap();
                // As another command would find it.
                let started = Container::load(&directory).unwrap().container.start(&mut Vec::new());
                container.delete().unwrap();
                started.err()
            }
        };
        let mut after = picture(&states);
        // The three streams went into create, which closes them.
        after.descriptors += 3;
        assert_eq!(after, before, "step {step}: {error:?}");
        drop(output);
        let Some(error) = error else {
            assert!(step > 50, "{step} steps");
            return failed_in;
        };
        let text = error.to_string();
        assert!(text.contains("injected fault"), "{text}");
        failed_in.insert(text.split_whitespace().nth(1).unwrap().to_owned());
    }
    failed_in
}

#[track_caller]
fn check(failed_in: &BTreeSet<String>, names: &[&str]) {
    for name in names {
        assert!(failed_in.contains(*name), "{name}: {failed_in:?}");
    }
}

const ALWAYS: [&str; 7] =
    ["clone-init", "mount-rootfs", "attach-rootfs", "mount", "enter-rootfs", "execute", "set-oom-score"];

/// S-155
pub(super) fn s155_a_fault_at_every_step_leaves_nothing() {
    check(&fail_every_step(everyday()), &ALWAYS);
}

/// S-155: hooks, mappings, clocks, policies.
pub(super) fn s155_a_fault_at_every_step_of_an_elaborate_container() {
    let failed_in = fail_every_step(elaborate());
    check(&failed_in, &ALWAYS);
    let further = "map-mounts map-ids raise-limit run-runtime-hooks run-container-hooks await-mappings await-runtime-hooks \
                   write-clocks await-clocks offset-clocks set-domainname bind-device set-personality set-memory-policy \
                   set-scheduler set-io-priority read-only-rootfs set-rootfs-propagation load-seccomp prepare-seccomp";
    check(&failed_in, &further.split_whitespace().collect::<Vec<_>>());
}

/// S-155: a container among the host's mounts, of which the host must see none at any step.
pub(super) fn s155_a_fault_at_every_step_among_the_hosts_mounts() {
    let mut bundle = everyday();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    let failed_in = fail_every_step(bundle);
    check(&failed_in, &ALWAYS);
    check(&failed_in, &["leave-host-mounts", "isolate-mounts"]);
}

/// S-155: a container that joins another one's namespaces, which must be as they were.
pub(super) fn s155_a_fault_at_every_step_of_joining() {
    let mut first = Bundle::new().user_ns().overlay().sh("echo up; sleep 60");
    let running = first.start();
    running.await_line("up");
    let mut second = Bundle::new().overlay();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", running.container.init.pid);
    second.spec["hostname"] = json!("");
    second.spec["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "cgroup"}, {"type": "user", "path": path("user")}, {"type": "pid", "path": path("pid")},
        {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")},
    ]);
    let failed_in = fail_every_step(second);
    check(&failed_in, &["open-namespace", "join-namespace", "clone-init", "execute"]);
    assert_eq!(running.container.pids().unwrap(), [running.container.init.pid]);
    assert_eq!(running.exec(&process_value(&["hostname"])), (0, "berth-test\n".to_owned()));
    running.container.delete().unwrap();
}

/// S-155: an added process that fails leaves the container as it was.
pub(super) fn s155_a_fault_at_every_step_of_exec() {
    let nowhere = Path::new("/nowhere");
    for in_user_ns in [false, true] {
        let bundle = Bundle::new().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
        let mut bundle = (if in_user_ns { bundle.user_ns().overlay() } else { bundle }).sh("echo up; sleep 60");
        let running = bundle.start();
        running.await_line("up");
        let mut process = process_value(&["true"]);
        process["oomScoreAdj"] = json!(100);
        process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 5});
        let process = serde_json::from_value(process).unwrap();
        let mut failed_in: BTreeSet<String> = BTreeSet::new();
        for step in 0.. {
            let (stdio, output) = pipes();
            let before = picture(nowhere);
            let affinity = fs::read_to_string("/proc/self/status").unwrap();
            let allowed = |text: &str| text.lines().find(|line| line.starts_with("Cpus_allowed:")).map(str::to_owned);
            let tuning = ExecTuning { fault: Some(Fault(step)), ..ExecTuning::default() };
            let result = running.container.exec_tuned(&process, stdio, &tuning, &mut Vec::new());
            let error = match result {
                Ok(added) => {
                    assert_eq!(crate::support::wait(&added), 0);
                    None
                }
                Err(error) => Some(error),
            };
            let mut after = picture(nowhere);
            after.descriptors += 3;
            assert_eq!(after, before, "step {step}: {error:?}");
            assert_eq!(allowed(&fs::read_to_string("/proc/self/status").unwrap()), allowed(&affinity), "step {step}");
            assert_eq!(running.container.pids().unwrap(), [running.container.init.pid], "step {step}");
            drop(output);
            let Some(error) = error else { break };
            assert!(error.to_string().contains("injected fault"), "{error}");
            failed_in.insert(error.to_string().split_whitespace().nth(1).unwrap().to_owned());
        }
        let names = "pin-caller clone-init set-oom-score enter-cgroup set-affinity join-namespace start-session set-io-priority \
                     resolve-user set-limit enter-cwd load-seccomp set-user set-capabilities close-descriptors execute";
        check(&failed_in, &names.split_whitespace().collect::<Vec<_>>());
        running.container.delete().unwrap();
    }
}
