//! The first process, as a process: it needs no container to show what it does.

use std::io::Read;
use std::process::{Command, Stdio};

fn init() -> Command {
    Command::new(env!("CARGO_BIN_EXE_berth-init"))
}

#[test]
fn ends_with_the_programs_code() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let status = init().args(["--", "sh", "-c", script]).status().unwrap();
        assert_eq!(status.code(), Some(code), "{script}");
    }
}

#[test]
fn missing_program_is_127_and_a_directory_126() {
    assert_eq!(init().arg("no-such-program-here").stderr(Stdio::null()).status().unwrap().code(), Some(127));
    assert_eq!(init().arg("/etc").stderr(Stdio::null()).status().unwrap().code(), Some(126));
}

#[test]
fn forwards_signals() {
    let mut child = init()
        .args(["sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.1; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got\n", Some(3)));
}
