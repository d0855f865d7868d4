//! Every branch of the verdict, from facts alone.

use serde_json::{Value, json};

use super::verdict::verdict;
use super::*;

fn record(state: Value, host: Value) -> Record {
    let zero = format!("sha256:{}", "0".repeat(64));
    let mut whole = json!({
        "version": 1, "id": "a".repeat(64), "name": "web", "created": "2026-01-01T00:00:00Z", "image_id": zero, "image_name": "i",
        "config": {"cmd": ["prog", "arg"]}, "host": host,
        "state": {"status": "exited", "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:10Z"},
    });
    for (key, value) in state.as_object().unwrap() {
        whole["state"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn sent(signal: i32, by: &str, second: u32) -> Value {
    json!({"signal": signal, "by": by, "at": format!("2026-01-01T00:00:{second:02}Z"), "caller": {"pid": 7, "uid": 0, "name": "docker"}})
}

#[track_caller]
fn check(state: Value, host: Value, cause: Cause, words: &str) {
    let found = verdict(&record(state, host));
    assert_eq!(found.cause, cause, "{found:?}");
    assert!(found.sentence.contains(words), "{words:?} in {found:?}");
}

#[test]
fn states_before_an_end() {
    check(json!({"status": "running"}), json!({}), Cause::Running, "running");
    check(json!({"status": "paused"}), json!({}), Cause::Running, "paused");
    check(json!({"status": "created", "started_at": null}), json!({}), Cause::NeverStarted, "never started");
    let failed =
        |code: i32| json!({"status": "created", "exit_code": code, "error": "no", "end": {"failed_start": true}});
    check(failed(127), json!({}), Cause::ProgramNotFound, "\"prog\" is not in the image");
    check(failed(126), json!({}), Cause::ProgramNotExecutable, "\"prog\" cannot be executed");
    check(failed(128), json!({}), Cause::StartFailed, "never ran: no");
}

#[test]
fn own_codes() {
    check(json!({"exit_code": 0}), json!({}), Cause::Finished, "exit code 0");
    check(json!({"exit_code": 3}), json!({}), Cause::ExitCode, "exit code 3");
    check(json!({"exit_code": 127}), json!({}), Cause::ExitCode, "command is not found");
    // A program that returns 137 was not killed.
    check(json!({"exit_code": 137}), json!({}), Cause::ExitCode, "its child was ended by SIGKILL");
    let refused = json!({"exit_code": 2, "end": {"forks_refused": 1, "pids_limit": 8}});
    check(refused, json!({}), Cause::PidsLimit, "limit of 8 processes refused 1 fork");
    let child = json!({"exit_code": 5, "end": {"oom_kills": 2, "memory_limit_bytes": 33_554_432}});
    check(child, json!({}), Cause::ChildOutOfMemory, "2 processes were killed by the kernel");
}

#[test]
fn signals() {
    let by = |signal: i32| json!({"exit_code": 128 + signal, "end": {"signal": signal}});
    check(by(11), json!({}), Cause::Crash, "SIGSEGV");
    check(by(6), json!({}), Cause::Crash, "abort()");
    check(by(31), json!({}), Cause::Seccomp, "seccomp");
    check(by(24), json!({}), Cause::CpuTimeLimit, "CPU time");
    check(by(25), json!({}), Cause::FileSizeLimit, "file");
    check(by(9), json!({}), Cause::ForeignSignal, "from outside the container and not through this engine");
    check(by(9), json!({"pid_mode": "host"}), Cause::ForeignSignal, "did not come through this engine");
    // With --init the program's own death is a code of our init.
    check(json!({"exit_code": 139}), json!({"init": true}), Cause::Crash, "SIGSEGV");
    let memory = |hits: u32| {
        json!({"exit_code": 137, "end": {"signal": 9, "oom_kills": 1, "memory_limit_hits": hits, "memory_limit_bytes": 33_554_432,
               "memory_peak_bytes": 33_554_432}})
    };
    check(memory(9), json!({}), Cause::OutOfMemory, "limit 32MiB, peak 32MiB");
    check(memory(0), json!({}), Cause::OutOfMemory, "limit 32MiB");
    check(json!({"exit_code": 137, "end": {"signal": 9, "oom_kills": 1}}), json!({}), Cause::HostOutOfMemory, "host");
}

#[test]
fn clients() {
    let killed = json!({"exit_code": 137, "end": {"signal": 9, "oom_kills": 1, "sent": [sent(9, "kill", 9)]}});
    check(killed, json!({}), Cause::KilledByClient, "killed by SIGKILL: sent with kill by uid 0, pid 7 (docker)");
    let stopped = json!({"exit_code": 143, "end": {"signal": 15, "sent": [sent(15, "stop", 9)]}});
    check(stopped, json!({}), Cause::Stopped, "SIGTERM, obeyed after 1.0 s");
    let handled = json!({"exit_code": 0, "end": {"sent": [sent(15, "stop", 9)]}});
    check(handled, json!({}), Cause::Stopped, "it exited with 0");
    let late =
        json!({"exit_code": 137, "end": {"signal": 9, "sent": [sent(15, "stop", 0), sent(9, "stop-deadline", 10)]}});
    check(late, json!({}), Cause::StopTimedOut, "did not end on SIGTERM within 10.0 s");
    let at_once = json!({"exit_code": 137, "end": {"signal": 9, "sent": [sent(9, "stop-deadline", 10)]}});
    check(at_once, json!({}), Cause::StopTimedOut, "killed at once");
    let removed = json!({"exit_code": 137, "end": {"signal": 9, "sent": [sent(9, "remove", 10)]}});
    check(removed, json!({}), Cause::RemovedByForce, "by uid 0");
    let answered = json!({"exit_code": 1, "end": {"sent": [sent(15, "kill", 9)]}});
    check(answered, json!({}), Cause::KilledByClient, "ended on SIGTERM");
    // A reload an hour ago, or just now, is no reason to end.
    check(json!({"exit_code": 1, "end": {"sent": [sent(1, "kill", 9)]}}), json!({}), Cause::ExitCode, "by itself");
    let long_ago =
        json!({"exit_code": 1, "finished_at": "2026-01-01T01:00:00Z", "end": {"sent": [sent(15, "kill", 9)]}});
    check(long_ago, json!({}), Cause::ExitCode, "by itself");
}

#[test]
fn the_ground_goes() {
    check(json!({"exit_code": 137, "end": {"shim_lost": true}}), json!({}), Cause::ShimLost, "shim");
    check(json!({"exit_code": 137, "end": {"host_restarted": true}}), json!({}), Cause::HostRestarted, "host");
}

/// A record written before there were ends.
#[test]
fn older_records() {
    let report = report(&record(json!({"exit_code": 1}), json!({})), 1, vec!["x".to_owned()]);
    assert_eq!((report.cause, report.earlier.len()), (Cause::ExitCode, 0));
    assert_eq!(report.evidence[1].value, "2026-01-01T00:00:10.000000000Z, 10.0 s after its start");
}

#[test]
fn earlier_ends_leave_out_the_one_at_hand() {
    let past = json!([{"at": "2026-01-01T00:00:01Z", "exit_code": 1, "cause": "exit-code"},
                      {"at": "2026-01-01T00:00:10Z", "exit_code": 2, "cause": "exit-code"}]);
    let ended = report(&record(json!({"exit_code": 2, "past": past}), json!({})), 2, Vec::new());
    assert_eq!(ended.earlier.iter().map(|end| end.exit_code).collect::<Vec<_>>(), [1]);
    let running =
        report(&record(json!({"status": "running", "finished_at": null, "past": past}), json!({})), 2, Vec::new());
    assert_eq!(running.earlier.len(), 2);
}
