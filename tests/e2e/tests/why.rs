//! `berth why`: scripted deaths and the verdict on each. Processes really crash, run out of memory and are killed; nothing is told to the
//! engine but what the kernel says.

use std::fs;
use std::path::PathBuf;

use berth_testkit::{Instance, wait_until};
use serde_json::Value;

/// The report on a container.
#[track_caller]
fn why(berth: &Instance, container: &str) -> Value {
    serde_json::from_str(berth.berth(&["why", "--json", container]).ok()).unwrap()
}

#[track_caller]
fn check(berth: &Instance, container: &str, cause: &str, words: &str) -> Value {
    let report = why(berth, container);
    assert_eq!(report["cause"], cause, "{report:#}");
    assert!(report["verdict"].as_str().unwrap().contains(words), "{words:?} in {report:#}");
    report
}

/// Runs to its end under this name.
fn run(berth: &Instance, name: &str, options: &[&str], words: &[&str]) {
    berth.berth(&[&["run", "--name", name], options, &["busybox"], words].concat());
}

/// A program of a few bytes: an ELF file around machine code.
fn program(berth: &Instance, name: &str, code: &[u8]) -> PathBuf {
    let (base, header) = (0x40_0000_u64, 120_u64);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [base + header, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // One loaded segment, readable and executable.
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    let length = header + code.len() as u64;
    for word in [0, base, base, length, length, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    let path = berth.directory.join(name);
    fs::write(&path, elf).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Deaths of the program's own making.
#[test]
fn own_deaths() {
    let berth = Instance::with_busybox();
    run(&berth, "good", &[], &["true"]);
    check(&berth, "good", "finished", "exit code 0");
    run(&berth, "code", &[], &["sh", "-c", "echo one; echo two >&2; exit 3"]);
    let report = check(&berth, "code", "exit-code", "exit code 3");
    assert_eq!(report["last_lines"], serde_json::json!(["one", "two"]));
    run(&berth, "missing", &[], &["no-such-program"]);
    check(&berth, "missing", "program-not-found", "no-such-program");
    run(&berth, "text", &[], &["/etc/passwd"]);
    check(&berth, "text", "program-not-executable", "/etc/passwd");
    // xor %eax,%eax; mov %eax,(%rax)
    let crash = program(&berth, "crash", &[0x31, 0xc0, 0x89, 0x00]);
    run(&berth, "crash", &["-v", &format!("{}:/crash:ro", crash.display())], &["/crash"]);
    check(&berth, "crash", "crash", "SIGSEGV");
    // A program that says 137 was not killed.
    run(&berth, "liar", &[], &["sh", "-c", "exit 137"]);
    check(&berth, "liar", "exit-code", "exit code 137");
    let page = berth.berth(&["why", "code"]);
    let page = page.ok();
    assert!(page.starts_with("code: its program ended by itself with exit code 3\n"), "{page}");
    assert!(page.contains("waitid(2)") && page.contains("    two\n") && page.contains("hint: "), "{page}");
}

/// Deaths by a limit.
#[test]
fn limits() {
    let berth = Instance::with_busybox();
    let memory = ["-m", "32m", "--memory-swap", "32m"];
    run(&berth, "oom", &memory, &["sh", "-c", "exec tail -c 200m /dev/zero"]);
    let report = check(&berth, "oom", "out-of-memory", "limit 32MiB, peak 32MiB");
    assert_eq!(report["exit_code"], 137);
    run(&berth, "child", &memory, &["sh", "-c", "tail -c 200m /dev/zero; exit 5"]);
    check(&berth, "child", "child-out-of-memory", "1 process was killed by the kernel");
    run(&berth, "forks", &["--pids-limit", "6"], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; exit 7"]);
    check(&berth, "forks", "pids-limit", "limit of 6 processes");
    let profile = berth.directory.join("seccomp.json");
    let rule = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    fs::write(&profile, rule).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    run(&berth, "call", &["--security-opt", &seccomp], &["mkdir", "/x"]);
    check(&berth, "call", "seccomp", "SIGSYS");
    // The kernel's log may be closed to us, or an audit daemon have the line; then the report does not name the call.
    let log = std::process::Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let line =
        String::from_utf8_lossy(&log).lines().any(|line| line.contains("type=1326") && line.contains(" sig=31 "));
    if line {
        // A line of somebody else's at the same moment makes it unclear whose it is: then it is left out.
        let mut n = 0;
        berth_testkit::wait_until("the report names the call", || {
            n += 1;
            run(&berth, &format!("call{n}"), &["--security-opt", &seccomp], &["mkdir", "/x"]);
            let report = why(&berth, &format!("call{n}"));
            report["verdict"].as_str()?.contains("mkdir made the system call mkdir (83)").then_some(())
        });
    } else {
        println!("does not apply: the kernel's log has no audit line");
    }
}

/// Deaths that a client asked for; the report names it.
#[test]
fn clients() {
    let berth = Instance::with_busybox();
    berth.sleeper("killed", &[]);
    berth.berth(&["kill", "-s", "KILL", "killed"]).ok();
    berth.berth(&["wait", "killed"]).ok();
    check(&berth, "killed", "killed-by-client", "sent with kill by uid 0, pid ");
    let polite = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    berth.berth(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", polite]).ok();
    wait_until("the trap is set", || berth.berth(&["logs", "polite"]).stdout.contains("ready").then_some(()));
    berth.berth(&["stop", "polite"]).ok();
    check(&berth, "polite", "stopped", "it exited with 4");
    berth.sleeper("deaf", &[]);
    berth.berth(&["stop", "-t", "1", "deaf"]).ok();
    let report = check(&berth, "deaf", "stop-timed-out", "did not end on SIGTERM within 1.");
    assert!(report["advice"].as_str().unwrap().contains("--init"), "{report:#}");
    berth.sleeper("forced", &["--rm"]);
    berth.berth(&["rm", "-f", "forced"]).ok();
    let report = check(&berth, "forced", "removed-by-force", "removed by force by uid 0");
    assert_eq!(report["is_removed"], true);
}

/// Deaths from outside: a signal of the host's, the shim's own death, an end while no daemon looked.
#[test]
fn from_outside() {
    let mut berth = Instance::with_busybox();
    let signal = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    berth.sleeper("shot", &[]);
    signal(berth.pid("shot"));
    berth.berth(&["wait", "shot"]).ok();
    check(&berth, "shot", "foreign-signal", "SIGKILL, sent from outside the container");
    berth.sleeper("orphan", &[]);
    let stat = fs::read_to_string(format!("/proc/{}/stat", berth.pid("orphan"))).unwrap();
    let shim = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    signal(shim);
    berth.berth(&["wait", "orphan"]).ok();
    check(&berth, "orphan", "shim-lost", "its shim ended unexpectedly");
    // The kernel kills it while no daemon runs; the next one learns why.
    let script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec tail -c 200m /dev/zero";
    let options = ["run", "-d", "--name", "alone", "-m", "32m", "--memory-swap", "32m"];
    berth.berth(&[&options[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let pid = berth.pid("alone");
    berth.kill_daemon();
    fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    wait_until("the kernel has killed it", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z")).then_some(())
    });
    berth.spawn();
    wait_until("the end is known", || (berth.inspect("alone", "{{.State.Running}}") == "false").then_some(()));
    check(&berth, "alone", "out-of-memory", "limit 32MiB");
}

/// Runs before are kept in short, a few of them; a container that failed and removed itself can still be asked about.
#[test]
fn history() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "-d", "--name", "loop", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 9"]).ok();
    let report = wait_until("it has given up", || {
        let report = why(&berth, "loop");
        (report["status"] == "exited").then_some(report)
    });
    assert_eq!(report["earlier"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!((&report["earlier"][0]["exit_code"], &report["cause"]), (&9.into(), &"exit-code".into()));
    berth.berth(&["run", "--rm", "--name", "gone", "busybox", "sh", "-c", "echo last words; exit 6"]);
    let report = wait_until("it is removed", || {
        let report = berth.berth(&["why", "--json", "gone"]);
        let report: Value = serde_json::from_str(&report.stdout).ok()?;
        (report["is_removed"] == true).then_some(report)
    });
    assert_eq!((&report["exit_code"], &report["last_lines"][0]), (&6.into(), &"last words".into()));
    assert_eq!(berth.berth(&["why", "nobody"]).code, 125);
}
