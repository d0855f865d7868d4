//! From facts to one sentence: pure, and tested case by case. The order of the questions is the order of certainty:
//! what the engine did itself, then what the kernel counted, then what the exit status says.

use berth_types::{ByteCount, Signal, Timestamp};
use serde::{Deserialize, Serialize};

use super::end::{Disposition, End, Sender, Sent};
use crate::api::Status;
use crate::record::Record;
use crate::request::stop_signal;

/// A signal of a client counts as the reason of an exit code when the exit came within this time.
const ANSWER_NANOS: i64 = 10_000_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Shells and inits report a child that a signal ended as 128 and its number.
const SHELL_SIGNAL: i32 = 128;

/// Why a container is not running, in a word. Stable: scripts may compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    NeverStarted,
    Running,
    Removing,
    ProgramNotFound,
    ProgramNotExecutable,
    StartFailed,
    /// Exit code 0, by itself.
    Finished,
    /// Another exit code, by itself.
    ExitCode,
    /// Init was killed for lack of memory, with a limit of the container's own.
    OutOfMemory,
    /// Another process was, and init gave up.
    ChildOutOfMemory,
    /// Killed for lack of memory without a limit of its own being hit.
    HostOutOfMemory,
    PidsLimit,
    CpuTimeLimit,
    FileSizeLimit,
    Crash,
    Seccomp,
    KilledByClient,
    Stopped,
    /// It did not obey the stop signal in time.
    StopTimedOut,
    RemovedByForce,
    /// A signal from outside that the engine did not send.
    ForeignSignal,
    ShimLost,
    HostRestarted,
}

/// The sentence and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) cause: Cause,
    pub(crate) sentence: String,
    pub(crate) advice: Option<String>,
}

impl Verdict {
    fn new(cause: Cause, sentence: impl Into<String>) -> Self {
        Self { cause, sentence: sentence.into(), advice: None }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

pub(crate) fn verdict(record: &Record) -> Verdict {
    let state = &record.state;
    match state.status {
        Status::Running => Verdict::new(Cause::Running, "it is running"),
        Status::Paused => Verdict::new(Cause::Running, "it is running, but paused: no process of it makes progress")
            .advise(format!("berth unpause {}", record.name)),
        Status::Removing => Verdict::new(Cause::Removing, "it is being removed"),
        _ if state.end.failed_start => failed_start(record),
        Status::Created => {
            Verdict::new(Cause::NeverStarted, "it was never started").advise(format!("berth start {}", record.name))
        }
        Status::Restarting | Status::Exited | Status::Dead => ended(record),
    }
}

fn failed_start(record: &Record) -> Verdict {
    let argv = record.argv();
    let program = argv.first().map_or("", String::as_str);
    match record.state.exit_code {
        127 => {
            Verdict::new(Cause::ProgramNotFound, format!("it never ran: the program \"{program}\" is not in the image"))
                .advise("check its name, the PATH of the container, and the interpreter in its first line")
        }
        126 => Verdict::new(
            Cause::ProgramNotExecutable,
            format!("it never ran: the program \"{program}\" cannot be executed"),
        )
        .advise("check its mode (chmod +x), its owner, its architecture, and noexec on a mount it lies on"),
        _ => Verdict::new(Cause::StartFailed, format!("it never ran: {}", record.state.error)),
    }
}

fn ended(record: &Record) -> Verdict {
    let end = &record.state.end;
    if end.host_restarted {
        return Verdict::new(Cause::HostRestarted, "it ended with the host, which was restarted since")
            .advise(format!("to have it started again: berth update --restart unless-stopped {}", record.name));
    }
    if end.shim_lost {
        return Verdict::new(
            Cause::ShimLost,
            "its shim ended unexpectedly, so the engine killed what was left of the container",
        )
        .advise("look for a kill of containerd-shim-berth-v1 by a person or by the host's lack of memory: dmesg");
    }
    let signal = fatal_signal(record);
    client(record, signal).or_else(|| signal.map(|signal| by_signal(record, signal))).unwrap_or_else(|| by_code(record))
}

/// Init's own, or with `--init` that of the program, which our init passes on as 128 and the number.
fn fatal_signal(record: &Record) -> Option<Signal> {
    let code = record.state.exit_code;
    let passed_on = || (record.host.init == Some(true) && code > SHELL_SIGNAL).then_some(code - SHELL_SIGNAL);
    record.state.end.signal.or_else(passed_on).and_then(|number| Signal::new(number).ok())
}

/// Ends that a client of the engine asked for.
fn client(record: &Record, signal: Option<Signal>) -> Option<Verdict> {
    let end = &record.state.end;
    let is_killed = signal == Some(Signal::KILL);
    if let Some(sent) = end.last(Sender::StopDeadline).filter(|_| is_killed) {
        return Some(stop_timed_out(record, sent));
    }
    if let Some(sent) = end.last(Sender::Remove).filter(|_| is_killed) {
        return Some(Verdict::new(Cause::RemovedByForce, format!("removed by force{}", by(sent))));
    }
    let same = |sent: &&Sent| Some(sent.signal) == signal.map(Signal::number);
    if let Some(sent) = end.sent.iter().rev().filter(|sent| sent.by == Sender::Kill).find(same) {
        let sentence = format!("killed by {}: sent with kill{}", name(sent.signal), by(sent));
        return Some(Verdict::new(Cause::KilledByClient, sentence));
    }
    if let Some(sent) = end.last(Sender::Stop) {
        let sentence = format!("stopped{}: {}, obeyed {}", by(sent), name(sent.signal), after(record, sent));
        let ended =
            if signal.is_some() { String::new() } else { format!("; it exited with {}", record.state.exit_code) };
        return Some(Verdict::new(Cause::Stopped, sentence + &ended));
    }
    let sent =
        end.last(Sender::Kill).filter(|sent| signal.is_none() && ends(record, sent) && is_answered(record, sent))?;
    let sentence = format!(
        "ended on {}, sent with kill{}; it exited with {}",
        name(sent.signal),
        by(sent),
        record.state.exit_code
    );
    Some(Verdict::new(Cause::KilledByClient, sentence))
}

/// Signals that a program commonly ends on.
fn ends(record: &Record, sent: &Sent) -> bool {
    const INT: i32 = 2;
    const QUIT: i32 = 3;
    let own = stop_signal(&record.config).unwrap_or(Signal::TERM);
    [INT, QUIT, Signal::TERM.number(), own.number()].contains(&sent.signal)
}

fn is_answered(record: &Record, sent: &Sent) -> bool {
    record.state.finished_at.is_some_and(|end| end.0.saturating_sub(sent.at.0) <= ANSWER_NANOS)
}

fn stop_timed_out(record: &Record, deadline: &Sent) -> Verdict {
    let stop = record.state.end.last(Sender::Stop);
    let (signal, waited) = match stop {
        Some(stop) => (name(stop.signal), seconds(deadline.at, stop.at)),
        None => ("no signal (time-out 0)".to_owned(), "0.0 s".to_owned()),
    };
    let by = stop.map(by).unwrap_or_default();
    let sentence = match stop {
        Some(_) => format!("stopped{by}: it did not end on {signal} within {waited}, so it was killed"),
        None => format!("stopped{}: killed at once", self::by(deadline)),
    };
    let verdict = Verdict::new(Cause::StopTimedOut, sentence);
    match deadline.disposition.filter(|_| stop.is_some()) {
        Some(Disposition::Default) => verdict.advise(format!(
            "its first process has no handler for {signal}, which for pid 1 means that the kernel drops it: \
             run it with --init, start the program with exec, or name another --stop-signal"
        )),
        Some(Disposition::Ignored) => {
            verdict.advise(format!("its first process ignores {signal}: name a signal it ends on with --stop-signal"))
        }
        Some(Disposition::Handled) => {
            verdict.advise(format!("its handler for {signal} took longer: give it more time with --stop-timeout"))
        }
        None => verdict,
    }
}

fn by_seccomp(end: &End) -> Verdict {
    let Some(call) = &end.killed_call else {
        return Verdict::new(
            Cause::Seccomp,
            "killed by the kernel: it made a system call that its seccomp filter answers with a kill (SIGSYS)",
        )
        .advise("find the call with strace -f or in dmesg (type=1326), and allow it with --security-opt seccomp=FILE");
    };
    let name = if call.name.is_empty() { format!("number {}", call.number) } else { call.name.clone() };
    let (number, comm) = (call.number, &call.comm);
    let doubt = if call.by_time { "; told by the time alone: the only such line of the kernel's log then" } else { "" };
    Verdict::new(
        Cause::Seccomp,
        format!(
            "killed by the kernel: {comm} made the system call {name} ({number}), which its seccomp filter answers with a kill (SIGSYS){doubt}"
        ),
    )
    .advise(format!("allow {name} with --security-opt seccomp=FILE"))
}

fn by_signal(record: &Record, signal: Signal) -> Verdict {
    let end = &record.state.end;
    match signal.to_string().as_str() {
        "SIGKILL" if end.oom_kills > 0 => out_of_memory(record, end),
        "SIGSYS" => by_seccomp(end),
        "SIGXCPU" => {
            Verdict::new(Cause::CpuTimeLimit, "killed by the kernel: its limit of CPU time is used up (SIGXCPU)")
                .advise("raise it with --ulimit cpu=SECONDS")
        }
        "SIGXFSZ" => Verdict::new(Cause::FileSizeLimit, "killed by the kernel: a file grew over its limit (SIGXFSZ)")
            .advise("raise it with --ulimit fsize=BYTES"),
        text @ ("SIGSEGV" | "SIGBUS" | "SIGILL" | "SIGFPE" | "SIGTRAP" | "SIGABRT" | "SIGSTKFLT") => crash(text, end),
        text => foreign(record, text),
    }
}

fn crash(signal: &str, end: &End) -> Verdict {
    let what = match signal {
        "SIGSEGV" => "it touched memory that is not its own",
        "SIGBUS" => "it touched memory behind which there is no page, such as a truncated file or a full /dev/shm",
        "SIGILL" => "it executed an instruction this processor does not have",
        "SIGFPE" => "it divided by zero or alike",
        "SIGABRT" => "it gave up by itself with abort()",
        _ => "a trap of its own",
    };
    let core = if end.core_dumped { ", and left a core dump" } else { "" };
    let verdict = Verdict::new(Cause::Crash, format!("it crashed: {signal}, {what}{core}"));
    match signal {
        "SIGBUS" => verdict.advise("if it uses shared memory, give it more with --shm-size"),
        "SIGILL" => verdict.advise("the image may be built for a newer processor than this"),
        _ => verdict,
    }
}

fn out_of_memory(record: &Record, end: &End) -> Verdict {
    let peak = if end.memory_peak_bytes > 0 {
        format!(", peak {}", ByteCount(end.memory_peak_bytes).binary())
    } else {
        String::new()
    };
    match end.memory_limit_bytes.filter(|limit| end.memory_limit_hits > 0 || is_near(end.memory_peak_bytes, *limit)) {
        Some(limit) => Verdict::new(
            Cause::OutOfMemory,
            format!("killed by the kernel for lack of memory: limit {}{peak}", ByteCount(limit).binary()),
        )
        .advise(format!("give it more with berth update -m SIZE {}, or find what grows with berth stats", record.name)),
        None => Verdict::new(
            Cause::HostOutOfMemory,
            format!(
                "killed by the kernel for lack of memory, but not for a limit of its own{peak}: the host or a group above had none left"
            ),
        )
        .advise("free memory on the host, or protect this container with --oom-score-adj"),
    }
}

/// Without swap to itself a v1 group meets the limit of memory and swap together, which counts its own hits.
fn is_near(peak: u64, limit: u64) -> bool {
    peak >= limit - limit / 50
}

/// The first process of a pid namespace gets no such signal from inside (pid_namespaces(7)).
fn foreign(record: &Record, signal: &str) -> Verdict {
    let shares_pids = !matches!(record.host.pid_mode.as_str(), "" | "private");
    let from = if shares_pids || record.host.init == Some(true) {
        "which did not come through this engine"
    } else {
        "sent from outside the container and not through this engine"
    };
    Verdict::new(Cause::ForeignSignal, format!("killed by {signal}, {from}"))
        .advise("a process of the host sent it: look at audit logs, service managers and people with root there")
}

fn by_code(record: &Record) -> Verdict {
    let (state, end) = (&record.state, &record.state.end);
    let code = state.exit_code;
    if code == 0 {
        return Verdict::new(Cause::Finished, "it finished its work: exit code 0");
    }
    if end.oom_kills > 0 {
        let limit =
            end.memory_limit_bytes.map_or_else(String::new, |limit| format!(" (limit {})", ByteCount(limit).binary()));
        return Verdict::new(
            Cause::ChildOutOfMemory,
            format!(
                "{} killed by the kernel for lack of memory{limit}; the first process then exited with {code}",
                count(end.oom_kills, "process was", "processes were")
            ),
        )
        .advise(format!(
            "give it more with berth update -m SIZE {}, or find what grows with berth stats",
            record.name
        ));
    }
    if end.forks_refused > 0 {
        let limit = end.pids_limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        return Verdict::new(
            Cause::PidsLimit,
            format!(
                "it exited with {code} after its limit{limit} processes refused {}",
                count(end.forks_refused, "fork", "forks")
            ),
        )
        .advise(format!("raise the limit with berth update --pids-limit N {}", record.name));
    }
    let convention = match code {
        126 => "; a shell says so when a command cannot be executed".to_owned(),
        127 => "; a shell says so when a command is not found".to_owned(),
        _ => match Signal::new(code - SHELL_SIGNAL) {
            Ok(signal) => format!("; a shell says so when its child was ended by {signal}"),
            Err(_) => String::new(),
        },
    };
    Verdict::new(Cause::ExitCode, format!("its program ended by itself with exit code {code}{convention}"))
        .advise(format!("its own words: berth logs {}", record.name))
}

pub(super) fn name(signal: i32) -> String {
    Signal::new(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

/// ` by uid 0, pid 4711 (docker)`
pub(super) fn by(sent: &Sent) -> String {
    sent.caller.as_ref().map_or_else(|| " by a client of the engine".to_owned(), |caller| format!(" by {caller}"))
}

fn after(record: &Record, sent: &Sent) -> String {
    record.state.finished_at.map_or_else(|| "in time".to_owned(), |end| format!("after {}", seconds(end, sent.at)))
}

pub(super) fn seconds(end: Timestamp, start: Timestamp) -> String {
    let tenths = end.0.saturating_sub(start.0).max(0) / (NANOS_PER_SECOND / 10);
    format!("{}.{} s", tenths / 10, tenths % 10)
}

pub(super) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
