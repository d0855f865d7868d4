//! What a run costs in calls that are dear: executions, flushes, deletions. Counted, not timed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use berth_testkit::peers::peer;
use berth_testkit::{Instance, wait_until};

/// `strace` on a daemon and on whatever it starts.
struct Tracer {
    process: Child,
    file: PathBuf,
}

impl Tracer {
    fn attach(berth: &Instance, calls: &str) -> Self {
        let file = berth.directory.join("strace");
        let mut process = Command::new(peer("usr/bin/strace"))
            .env("LD_LIBRARY_PATH", peer("usr/lib/x86_64-linux-gnu"))
            .args(["-f", "-y", "-e", &format!("trace={calls}"), "-o"])
            .arg(&file)
            .args(["-p", &berth.daemon_pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says so once it sees every thread.
        let mut line = String::new();
        let mut words = BufReader::new(process.stderr.take().unwrap());
        while !line.contains("attached") {
            line.clear();
            assert!(words.read_line(&mut line).unwrap() > 0, "strace attaches");
        }
        std::thread::spawn(move || words.lines().for_each(drop));
        Self { process, file }
    }

    /// Stops tracing; every line of it.
    fn stop(mut self) -> Vec<String> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), rustix::process::Signal::INT)
            .unwrap();
        self.process.wait().unwrap();
        fs::read_to_string(&self.file).unwrap().lines().map(str::to_owned).collect()
    }
}

/// One execution besides the container's own, at most two flushes, no link deleted.
#[test]
fn a_throw_away_run_costs_one_execution_and_no_flush_that_protects_nothing() {
    let berth = Instance::with_busybox();
    berth.busybox(&[], &["true"]).ok();
    wait_until("the first run is cleaned up", || berth.berth(&["ps", "-aq"]).ok().is_empty().then_some(()));
    let tracer = Tracer::attach(&berth, "execve,execveat,fsync,fdatasync,sync_file_range,syncfs,sync,msync");
    berth.busybox(&[], &["true"]).ok();
    let lines = tracer.stop();
    let executions: Vec<&String> =
        lines.iter().filter(|line| line.contains("execve") && !line.contains(" = -1 ")).collect();
    assert_eq!(executions.len(), 2, "the shim and the container's program: {lines:#?}");
    let flushes = lines.iter().filter(|line| line.contains("sync(") || line.contains("syncfs(")).count();
    assert!(flushes <= 2, "{lines:#?}");
}

/// A container that stays costs its record's flush when it is made and when it is removed, and nothing in between.
#[test]
fn starts_and_stops_flush_nothing() {
    let berth = Instance::with_busybox();
    berth.berth(&["create", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let tracer = Tracer::attach(&berth, "fsync,fdatasync,sync_file_range,syncfs,sync,msync");
    berth.berth(&["start", "c1"]).ok();
    berth.berth(&["exec", "c1", "true"]).ok();
    berth.berth(&["stop", "-t", "0", "c1"]).ok();
    let lines = tracer.stop();
    // The state of a container that lives on is written with the next flush, within a second.
    let flushes = lines.iter().filter(|line| line.contains("sync(") || line.contains("syncfs(")).count();
    assert!(flushes <= 2, "{lines:#?}");
}
