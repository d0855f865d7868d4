//! `sandbox COMMAND…`: process 1 of the namespaces that `unshare` made for a test run. It brings `lo` up, runs the command,
//! reaps what tests orphan, and ends with the command's code; with it ends whatever a test left running.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, wait};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!(
            "usage: unshare --mount --net --pid --fork --mount-proc --propagation private -- sandbox COMMAND [ARG...]"
        );
        return ExitCode::from(2);
    };
    if let Err(error) = berth_network::loopback_up() {
        eprintln!("sandbox: cannot bring lo up: {error}");
        return ExitCode::from(125);
    }
    match Command::new(&program).args(words).spawn() {
        Ok(child) => reap_until(Pid::from_child(&child)),
        Err(error) => {
            eprintln!("sandbox: cannot run {}: {error}", program.display());
            ExitCode::from(127)
        }
    }
}

fn reap_until(command: Pid) -> ExitCode {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return ExitCode::from(u8::try_from(code.unwrap_or(125)).unwrap_or(125));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                eprintln!("sandbox: cannot wait: {error}");
                return ExitCode::from(125);
            }
        }
    }
}
