//! The tiny first process for containers started with `--init`: runs a program, forwards signals to it, reaps orphans, and ends with
//! the program's exit code. One thread, no allocation after start, static.
//!
//! `berth-init [--] PROGRAM [ARGUMENT]...`
//!
//! It is not a service manager: when the program ends, so does the container.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use berth_sys::clone::{CloneArgs, clone_child};
use berth_sys::process::{StringArray, execve, reset_signals};
use berth_sys::signals;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// Signals that are about ourselves or our terminal, not messages for the program: CHLD, TTIN, TTOU, and the faults.
const OWN: [i32; 8] = [17, 21, 22, 4, 5, 7, 8, 11];
const PATH_DEFAULT: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    let arguments: Vec<CString> = arguments.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect();
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err((what, errno)) => {
            report(what, errno);
            ExitCode::from(if errno == Errno::NOENT { 127 } else { 126 })
        }
    }
}

#[expect(clippy::print_stderr, reason = "the only words of this program, in place of a program's that could not run")]
fn report(what: &str, errno: Errno) {
    eprintln!("berth-init: cannot {what}: {errno}");
}

fn run(arguments: Vec<CString>) -> Result<u8, (&'static str, Errno)> {
    if arguments.is_empty() {
        return Err(("run a program: none is named", Errno::INVAL));
    }
    signals::block_all().map_err(|errno| ("block signals", errno))?;
    let child = clone_child(&CloneArgs::default(), move || become_program(arguments))
        .map_err(|errno| ("make a process", errno))?;
    let pid = i32::try_from(child.pid).map_err(|_| ("make a process", Errno::OVERFLOW))?;
    loop {
        // An interrupted wait is tried again; the mask never changes, so nothing is missed.
        let Ok(signal) = signals::wait() else { continue };
        if signal == 17 {
            if let Some(code) = reap(pid) {
                return Ok(code);
            }
        } else if !OWN.contains(&signal) {
            let _gone = signals::send(pid, signal);
        }
    }
}

/// Takes every child that has ended, orphans included; `Some` when the program is among them.
fn reap(program: i32) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == Pid::from_raw(program)? {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> u8 {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// In the child: own process group, in the foreground of the terminal where there is one.
fn become_program(arguments: Vec<CString>) -> u8 {
    let _leader_already = rustix::process::setpgid(None, None);
    // SIGTTOU is still blocked, so a process in the background may do this.
    let _no_terminal = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
    if let Err(errno) = reset_signals() {
        report("reset signals", errno);
        return 126;
    }
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| CString::new([key.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect();
    let Some(program) = arguments.first().cloned() else { return 126 };
    let candidates = candidates(program.as_bytes(), &environment);
    let (arguments, environment) = (StringArray::new(arguments), StringArray::new(environment));
    let mut answer = Errno::NOENT;
    for candidate in &candidates {
        match execve(candidate, &arguments, &environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            other => answer = other,
        }
    }
    report("execute the program", answer);
    if answer == Errno::NOENT { 127 } else { 126 }
}

fn candidates(program: &[u8], environment: &[CString]) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path = environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or(PATH_DEFAULT);
    path.split(|b| *b == b':').filter_map(|dir| CString::new([dir, b"/", program].concat()).ok()).collect()
}
