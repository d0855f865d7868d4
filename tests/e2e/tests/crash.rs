//! S-155, S-118, S-132: an operation that fails, or whose daemon is killed, at any of its steps leaves nothing behind.
//!
//! The steps are the engine's own fault points (`berthd --fault-points`): each operation is run once to count them, then once for each,
//! with a failure or a kill there. What an instance holds is compared with what it held before: see `Traces`.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_testkit::archive::LayerFile;
use berth_testkit::instance::run;
use berth_testkit::{Image, Instance, Output, Traces, wait_until};
use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::DeleteRequest;
use containerd_shim_protos::ttrpc::Client;
use containerd_shim_protos::ttrpc::context::with_timeout;

/// Counts of links and namespaces are the machine's: one walk at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Restarted daemons answer within 2 s where a machine is free; a test gives up, it does not measure.
const READY_MAX: Duration = Duration::from_secs(20);

/// One operation of the walk.
struct Operation {
    name: &'static str,
    /// Makes what it needs.
    prepare: fn(&Instance),
    /// The client's command line and its input.
    act: fn(&Instance) -> (Command, Vec<u8>),
}

const RUN: &[&str] = &[
    "run",
    "-d",
    "--name",
    "c1",
    "-p",
    "127.0.0.1:0:80",
    "-m",
    "64m",
    "--stop-signal",
    "KILL",
    "busybox",
    "sleep",
    "1000",
];

fn run_c1(berth: &Instance) {
    berth.berth(RUN).ok();
}

fn created_c1(berth: &Instance) {
    berth.berth(&[&["create"], &RUN[2..]].concat()).ok();
}

fn words(berth: &Instance, words: &[&str]) -> (Command, Vec<u8>) {
    (berth.berth_command(words), Vec::new())
}

fn paused_c1(berth: &Instance) {
    run_c1(berth);
    berth.berth(&["pause", "c1"]).ok();
}

const OPERATIONS: [Operation; 13] = [
    Operation { name: "run -d", prepare: |_| {}, act: |berth| words(berth, RUN) },
    Operation { name: "start", prepare: created_c1, act: |berth| words(berth, &["start", "c1"]) },
    Operation {
        name: "run --rm",
        prepare: |_| {},
        act: |berth| words(berth, &["run", "--rm", "--name", "c1", "busybox", "true"]),
    },
    Operation { name: "stop", prepare: run_c1, act: |berth| words(berth, &["stop", "-t", "1", "c1"]) },
    Operation { name: "rm -f", prepare: run_c1, act: |berth| words(berth, &["rm", "-f", "c1"]) },
    Operation { name: "exec", prepare: run_c1, act: |berth| words(berth, &["exec", "c1", "sh", "-c", "exit 4"]) },
    Operation { name: "pause", prepare: run_c1, act: |berth| words(berth, &["pause", "c1"]) },
    Operation { name: "unpause", prepare: paused_c1, act: |berth| words(berth, &["unpause", "c1"]) },
    Operation { name: "rename", prepare: run_c1, act: |berth| words(berth, &["rename", "c1", "c2"]) },
    Operation { name: "update", prepare: run_c1, act: |berth| words(berth, &["update", "--pids-limit", "77", "c1"]) },
    Operation { name: "restart", prepare: run_c1, act: |berth| words(berth, &["restart", "-t", "1", "c1"]) },
    Operation { name: "commit", prepare: run_c1, act: |berth| words(berth, &["commit", "c1", "made:1"]) },
    Operation {
        name: "load",
        prepare: |_| {},
        act: |berth| {
            let image = Image::new("loaded:1").layer(vec![LayerFile::text("one", "1")]);
            let archive = image.layer(vec![LayerFile::text("two", "2")]).docker_archive();
            (berth.berth_command(&["load"]), archive)
        },
    },
];

fn act(berth: &Instance, operation: &Operation) -> Output {
    let (command, input) = (operation.act)(berth);
    run(command, &input)
}

/// Counts the steps of an operation by doing it, and cleans up.
fn steps(berth: &Instance, operation: &Operation) -> Vec<String> {
    (operation.prepare)(berth);
    let control = berth.fault_points();
    let seen = berth.directory.join("faults.seen");
    drop(std::fs::remove_file(&seen));
    std::fs::write(&control, "record").unwrap();
    act(berth, operation);
    // What the operation left to do in the background belongs to it.
    let mut last = 0;
    wait_until("no more steps", || {
        let now = std::fs::read_to_string(&seen).unwrap_or_default().lines().count();
        let is_quiet = now == last && berth.berth(&["version"]).code == 0;
        last = now;
        is_quiet.then_some(())
    });
    std::fs::remove_file(&control).unwrap();
    let steps = std::fs::read_to_string(&seen).unwrap().lines().map(str::to_owned).collect();
    clean(berth);
    steps
}

fn clean(berth: &Instance) {
    berth.berth(&["rm", "-f", "-v", "c1", "c2"]);
    for image in ["made:1", "loaded:1"] {
        berth.berth(&["rmi", "-f", image]);
    }
    berth.berth(&["image", "prune", "-f"]).ok();
}

/// What is listed is there: a process where it says running, and none otherwise.
fn check_state(berth: &Instance, after: &str) {
    // An exit found at the restart is cleaned up in the background: what is seen must hold by then.
    let deadline = Instant::now() + Duration::from_secs(10);
    wait_until("state and kernel agree", || {
        let shown = berth.berth(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        assert_eq!(shown.code, 0, "after {after}: {shown:?}\n{}", berth.log());
        let Some((name, state)) = shown.ok().split_once(' ') else { return Some(()) };
        assert!(name == "c1" || after.starts_with("rename") && name == "c2", "after {after}: {name}");
        if state == "removing" {
            return None;
        }
        assert!(["created", "running", "paused", "exited"].contains(&state), "after {after}: {state}");
        let pid = berth.berth(&["inspect", "--format", "{{.State.Pid}}", name]).stdout;
        let is_alive = std::path::Path::new(&format!("/proc/{}/ns", pid.trim())).exists();
        assert!(Instant::now() < deadline, "after {after}: {state} with pid {pid}, alive: {is_alive}\n{}", berth.log());
        (is_alive == ["running", "paused"].contains(&state)).then_some(())
    });
    let alive = berth.berth(&["ps", "--format", "{{.Names}} {{.State}}"]);
    if let Some((name, state)) = alive.ok().split_once(' ') {
        if state == "paused" {
            berth.berth(&["unpause", name]).ok();
        }
        let answer = berth.berth(&["exec", name, "echo", "here"]);
        assert!(answer.stdout == "here\n" || berth.berth(&["ps", "-q"]).ok().is_empty(), "after {after}: {answer:?}");
    }
}

/// Create before start before die before destroy, each once: checked for the container that had the name last.
/// `twice`: those that were restarted, which live twice.
fn check_events(berth: &Instance, after: &str, twice: &mut BTreeSet<String>) {
    let told = berth.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "type=container", "--json"]);
    let mut lives: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for line in told.ok().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let action = event["Action"].as_str().unwrap();
        if ["create", "start", "die", "destroy"].contains(&action) {
            lives.entry(event["Actor"]["ID"].as_str().unwrap().to_owned()).or_default().push(action.to_owned());
        }
    }
    let is_restart = after.starts_with("restart");
    for (id, life) in lives {
        let lived =
            life.strip_prefix(&["create".to_owned()]).and_then(|rest| rest.strip_suffix(&["destroy".to_owned()]));
        let is_legal = lived.is_some_and(|runs| {
            (runs.len() <= 2 || runs.len() == 4 && (is_restart || twice.contains(&id)))
                && runs.iter().enumerate().all(|(at, action)| action == ["start", "die"][at % 2])
                && runs.len() % 2 == 0
        });
        assert!(is_legal, "after {after}: container {id} lived {life:?}");
        if life.len() > 4 {
            twice.insert(id);
        }
    }
}

/// S-155: a failure after each step of each operation: the operation fails with that step's name and nothing of it is left.
#[test]
fn s155_a_failure_at_every_step_leaves_nothing() {
    let _alone = alone();
    let berth = Instance::with_busybox();
    run_c1(&berth);
    clean(&berth);
    let idle = Traces::idle(&berth);
    let mut walked = 0;
    for operation in &OPERATIONS {
        let steps = steps(&berth, operation);
        assert!(!steps.is_empty(), "{} has no fault points", operation.name);
        idle.await_again(&berth, operation.name);
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| !step.ends_with('!')) {
            let after = format!("{} with a failure after {step}", operation.name);
            (operation.prepare)(&berth);
            let seen = berth.directory.join("faults.seen");
            drop(std::fs::remove_file(&seen));
            std::fs::write(berth.fault_points(), format!("fail {}", index + 1)).unwrap();
            let failed = act(&berth, operation);
            let reached = std::fs::read_to_string(&seen).unwrap().lines().nth(index).map(str::to_owned);
            if reached.as_ref() != Some(step) {
                // Steps in the background came in another order this time: nothing was to fail.
                clean(&berth);
                continue;
            }
            assert!(!berth.fault_points().exists(), "{after}: the step was not reached: {failed:?}");
            assert_eq!(failed.code, 125, "{after}: {failed:?}");
            assert!(failed.stderr.contains(&format!("injected failure after step {step}")), "{after}: {failed:?}");
            clean(&berth);
            idle.await_again(&berth, &after);
            walked += 1;
        }
    }
    assert!(walked >= 20, "only {walked} steps can fail");
}

/// S-155, S-118: kill -9 of the daemon after each step of each operation. The next daemon is ready; the operation is done
/// or undone; events are told once and in order; the name is free, or the container is there and can be removed; nothing is left.
#[test]
fn s155_a_kill_at_every_step_leaves_nothing() {
    let _alone = alone();
    let mut berth = Instance::with_busybox();
    run_c1(&berth);
    clean(&berth);
    let idle = Traces::idle(&berth);
    let mut twice = BTreeSet::new();
    // The steps of a start are in `run -d`.
    for operation in OPERATIONS.iter().filter(|operation| operation.name != "start") {
        let steps = steps(&berth, operation);
        for (index, step) in steps.iter().enumerate() {
            let after = format!("{} killed after {step}", operation.name);
            (operation.prepare)(&berth);
            std::fs::write(berth.fault_points(), format!("kill {}", index + 1)).unwrap();
            let (command, input) = (operation.act)(&berth);
            // A client whose process lives on waits for it over the crash.
            let client = std::thread::spawn(move || run(command, &input));
            // Steps in the background may come in another order, or after the answer; each is reached all the same.
            berth.await_daemon_death();
            let begin = Instant::now();
            berth.spawn();
            assert!(begin.elapsed() < READY_MAX, "{after}: ready after {:?}", begin.elapsed());
            client.join().unwrap();
            check_state(&berth, &after);
            clean(&berth);
            berth.berth(&["create", "--name", "c1", "busybox"]).ok();
            clean(&berth);
            idle.await_again(&berth, &after);
            check_events(&berth, &after, &mut twice);
        }
    }
}

/// S-155, S-132: the daemon is killed between the delete of a task and the end of its shim: the container has ended, with the code that was
/// told, or with 137 where it was not.
#[test]
fn s155_a_shim_whose_task_is_deleted() {
    let _alone = alone();
    let mut berth = Instance::with_busybox();
    run_c1(&berth);
    clean(&berth);
    let idle = Traces::idle(&berth);
    let exits = Operation {
        name: "run",
        prepare: |_| {},
        act: |berth| words(berth, &["run", "-d", "--name", "c1", "busybox", "sh", "-c", "exit 5"]),
    };
    std::fs::write(berth.fault_points(), "record").unwrap();
    act(&berth, &exits);
    let told = wait_until("the exit is told", || {
        let steps = std::fs::read_to_string(berth.directory.join("faults.seen")).unwrap_or_default();
        steps.lines().position(|step| step.trim_end_matches('!') == "exit.told")
    });
    std::fs::remove_file(berth.fault_points()).unwrap();
    clean(&berth);
    for is_told in [true, false] {
        if is_told {
            // Steps of the start and of the exit may come in another order: until it is this one.
            while kill_at(&mut berth, &exits, told) != "exit.told" {
                berth.spawn();
                clean(&berth);
            }
        } else {
            run_c1(&berth);
            let pid = berth.pid("c1");
            berth.kill_daemon();
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        delete_task(&berth);
        berth.spawn();
        let state = berth.inspect("c1", "{{.State.Status}} {{.State.Pid}} {{.State.ExitCode}}");
        assert_eq!(state, if is_told { "exited 0 5" } else { "exited 0 137" }, "{}", berth.log());
        assert_eq!(berth.berth(&["wait", "c1"]).ok(), if is_told { "5" } else { "137" });
        clean(&berth);
        idle.await_again(&berth, "a deleted task");
        check_events(&berth, "a deleted task", &mut BTreeSet::new());
    }
}

/// Kills the daemon at the step of this number; the name of the step.
fn kill_at(berth: &mut Instance, operation: &Operation, index: usize) -> String {
    let seen = berth.directory.join("faults.seen");
    drop(std::fs::remove_file(&seen));
    std::fs::write(berth.fault_points(), format!("kill {}", index + 1)).unwrap();
    act(berth, operation);
    berth.await_daemon_death();
    let seen = std::fs::read_to_string(&seen).unwrap();
    seen.lines().nth(index).unwrap_or_default().trim_end_matches('!').to_owned()
}

/// Deletes the only container's task through its shim, as the daemon would.
fn delete_task(berth: &Instance) {
    let bundle = std::fs::read_dir(berth.state().join("tasks")).unwrap().next().unwrap().unwrap();
    let address = std::fs::read_to_string(bundle.path().join("address")).unwrap();
    let shim = TaskClient::new(Client::connect(&address).unwrap());
    let id = bundle.file_name().into_string().unwrap();
    wait_until("the stopped task is deleted", || {
        let request = DeleteRequest { id: id.clone(), ..Default::default() };
        shim.delete(with_timeout(10_000_000_000), &request).ok().map(drop)
    });
}
