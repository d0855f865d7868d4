//! What only the moment of an end can tell, kept with the container's state. Missing fields default, so older records are read.

use berth_types::{Signal, Timestamp};
use serde::{Deserialize, Serialize};

use super::Cause;
use super::audit::KilledCall;
use crate::caller::Caller;

/// Signals that are kept, the latest ones.
const SENT_MAX: usize = 8;
/// Ends of earlier runs that are kept.
const PAST_MAX: usize = 5;

/// Facts of one run. Signals are added while it lives, the rest at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// The signal that ended init, as waitid(2) told the shim; `None`: init exited by itself, or nobody could tell.
    pub signal: Option<i32>,
    pub core_dumped: bool,
    pub shim_lost: bool,
    /// It ended with the host.
    pub host_restarted: bool,
    /// The program was never executed.
    pub failed_start: bool,
    pub oom_kills: u64,
    pub memory_limit_bytes: Option<u64>,
    /// 0 where the kernel does not keep it.
    pub memory_peak_bytes: u64,
    /// How often the limit stood in the way.
    pub memory_limit_hits: u64,
    pub pids_limit: Option<u64>,
    pub forks_refused: u64,
    /// What a seccomp filter ended init for, where the kernel's log says so.
    pub killed_call: Option<KilledCall>,
    /// What clients of the engine sent, oldest first.
    pub sent: Vec<Sent>,
}

/// A signal that the engine sent, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub signal: i32,
    pub by: Sender,
    pub at: Timestamp,
    #[serde(default)]
    pub caller: Option<Caller>,
    /// Of init, when the time of a stop had run out: whether it has a handler for the stop signal, or ignores it.
    #[serde(default)]
    pub disposition: Option<Disposition>,
}

/// Which wish a signal carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    Kill,
    Stop,
    /// The SIGKILL after a stop signal that was not obeyed in time.
    StopDeadline,
    /// `rm -f`
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    Handled,
    Ignored,
    /// No handler: for the first process of a pid namespace that is as good as ignored (pid_namespaces(7)).
    Default,
}

/// An end of an earlier run in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEnd {
    pub at: Option<Timestamp>,
    pub exit_code: i32,
    pub cause: Cause,
}

impl End {
    /// Takes down a signal that is about to be sent.
    pub(crate) fn note(&mut self, signal: Signal, by: Sender) {
        if self.sent.len() >= SENT_MAX {
            self.sent.remove(0);
        }
        let caller = Caller::current();
        self.sent.push(Sent { signal: signal.number(), by, at: Timestamp::now(), caller, disposition: None });
    }

    /// The latest signal sent for this wish.
    pub(crate) fn last(&self, by: Sender) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| sent.by == by)
    }
}

/// Adds an end, the latest last.
pub(crate) fn remember(past: &mut Vec<PastEnd>, end: PastEnd) {
    // A daemon that was killed while it cleaned up comes by the same end again.
    if past.last().is_some_and(|last| last.at.is_some() && last.at == end.at) {
        return;
    }
    if past.len() >= PAST_MAX {
        past.remove(0);
    }
    past.push(end);
}

/// What a process does on a signal, from `/proc/<pid>/status`.
pub(crate) fn disposition(status: &str, signal: Signal) -> Option<Disposition> {
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        let bit = u32::try_from(signal.number() - 1).ok()?;
        Some(mask.checked_shr(bit)? & 1 == 1)
    };
    match (has("SigCgt:")?, has("SigIgn:")?) {
        (true, _) => Some(Disposition::Handled),
        (_, true) => Some(Disposition::Ignored),
        _ => Some(Disposition::Default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions() {
        let status = "Name:\tsh\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000004002\n";
        let of = |name: &str| disposition(status, name.parse().unwrap());
        assert_eq!(of("TERM"), Some(Disposition::Handled));
        assert_eq!(of("HUP"), Some(Disposition::Ignored));
        assert_eq!(of("USR1"), Some(Disposition::Default));
        assert_eq!(disposition("", Signal::TERM), None);
    }

    #[test]
    fn lists_are_bounded() {
        let mut end = End::default();
        (0..100).for_each(|_| end.note(Signal::TERM, Sender::Kill));
        assert_eq!(end.sent.len(), SENT_MAX);
        let mut past = Vec::new();
        for exit_code in 0..100 {
            remember(&mut past, PastEnd { at: None, exit_code, cause: Cause::ExitCode });
        }
        assert_eq!((past.len(), past[PAST_MAX - 1].exit_code), (PAST_MAX, 99));
    }
}
