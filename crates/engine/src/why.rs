//! `why`: the cause of a container's death. Facts are gathered at the end ([`end`], `gather`), the sentence is made from them (`verdict`),
//! and both are shown with where each fact comes from.
//!
//! What is absent: guessing. Where no fact decides, the verdict says what the exit status says and no more.

pub(crate) mod audit;
pub(crate) mod end;
mod gather;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::VecDeque;

use berth_types::{ByteCount, ContainerId, Signal, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;

use crate::api::{LogOptions, Status};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use end::{PastEnd, Sender};
pub use verdict::Cause;
use verdict::{by, count, name, seconds, verdict};

/// Reports of removed containers that are kept in memory.
const KEPT_MAX: usize = 64;
/// Last lines of the log in a report, and how much of each.
const LINES_MAX: usize = 10;
const LINE_CHARS_MAX: usize = 400;

/// What `why` says of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyReport {
    pub id: ContainerId,
    pub name: String,
    pub status: Status,
    pub cause: Cause,
    /// One sentence for a person.
    pub verdict: String,
    /// What to do, where there is a way out.
    pub advice: Option<String>,
    pub exit_code: i32,
    pub evidence: Vec<Evidence>,
    /// Last lines that it printed, both streams, oldest first.
    pub last_lines: Vec<String>,
    /// Ends of the runs before, oldest first.
    pub earlier: Vec<PastEnd>,
    pub is_removed: bool,
}

/// A fact, and where it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub fact: &'static str,
    pub value: String,
    /// Kernel file, system call or own record.
    pub source: &'static str,
}

/// Reports of containers that are gone.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    removed: Mutex<VecDeque<WhyReport>>,
}

impl Reports {
    fn keep(&self, report: WhyReport) {
        let mut removed = self.removed.lock();
        if removed.len() >= KEPT_MAX {
            removed.pop_front();
        }
        removed.push_back(report);
    }

    fn find(&self, container_ref: &str) -> Option<WhyReport> {
        let fits = |report: &&WhyReport| report.name == container_ref || report.id.as_str().starts_with(container_ref);
        self.removed.lock().iter().rev().find(fits).cloned()
    }
}

impl Engine {
    /// Why a container is not running, also of one that removed itself lately.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn why(&self, container_ref: &str) -> Result<WhyReport> {
        match self.find(container_ref) {
            Ok(container) => Ok(self.why_of(&container).await),
            Err(error) => self.inner.reports.find(container_ref).ok_or(error),
        }
    }

    async fn why_of(&self, container: &Container) -> WhyReport {
        let record = container.record();
        let last_lines = if record.state.started_at.is_some() { self.last_lines(&record).await } else { Vec::new() };
        report(&record, self.inner.facts.cgroup_version, last_lines)
    }

    /// Before a container that removes itself is gone: its report. Of a good end there is nothing to ask.
    pub(crate) async fn keep_report(&self, container: &Container) {
        let is_good = {
            let inner = container.lock();
            inner.record.state.exit_code == 0 && !inner.record.state.end.failed_start
        };
        if !is_good {
            let report = self.why_of(container).await;
            self.inner.reports.keep(WhyReport { is_removed: true, ..report });
        }
    }

    /// A report is made without the log when that cannot be read.
    async fn last_lines(&self, record: &Record) -> Vec<String> {
        let options = LogOptions { stdout: true, stderr: true, tail: Some(LINES_MAX), ..LogOptions::default() };
        let Ok(mut lines) = self.logs(record.id.as_str(), options).await else { return Vec::new() };
        let mut last = Vec::new();
        while let Some(lines) = lines.recv().await {
            for line in lines.iter() {
                let text = String::from_utf8_lossy(line.text);
                last.push(text.trim_end_matches(['\r', '\n']).chars().take(LINE_CHARS_MAX).collect());
            }
        }
        last
    }
}

/// Pure.
fn report(record: &Record, cgroup_version: u8, last_lines: Vec<String>) -> WhyReport {
    let found = verdict(record);
    let state = &record.state;
    // The last end is the verdict itself, unless the container runs again.
    let mut earlier = state.past.clone();
    if !matches!(state.status, Status::Running | Status::Paused) {
        earlier.pop();
    }
    WhyReport {
        id: record.id.clone(),
        name: record.name.clone(),
        status: state.status,
        cause: found.cause,
        verdict: found.sentence,
        advice: found.advice,
        exit_code: state.exit_code,
        evidence: if state.finished_at.is_some() { evidence(record, cgroup_version) } else { Vec::new() },
        last_lines,
        earlier,
        is_removed: false,
    }
}

fn evidence(record: &Record, cgroup_version: u8) -> Vec<Evidence> {
    let (state, end) = (&record.state, &record.state.end);
    let is_v2 = cgroup_version == 2;
    let mut list = Vec::new();
    let mut add = |fact, value: String, source| list.push(Evidence { fact, value, source });
    let status = match end.signal {
        _ if end.failed_start => (format!("code {}: {}", state.exit_code, state.error), "execve(2)"),
        Some(signal) => {
            let core = if end.core_dumped { ", core dumped" } else { "" };
            (format!("code {}: ended by {}{core}", state.exit_code, name(signal)), "waitid(2) in the shim")
        }
        None if end.shim_lost => (format!("code {}", state.exit_code), "clean-up in the shim's place"),
        None => (format!("code {}: exited by itself", state.exit_code), "waitid(2) in the shim"),
    };
    add("exit", status.0, status.1);
    if let Some(finished) = state.finished_at {
        let ran = state.started_at.filter(|_| !end.failed_start);
        let ran = ran.map_or_else(String::new, |start| format!(", {} after its start", seconds(finished, start)));
        add("ended", format!("{finished}{ran}"), "waitid(2) in the shim");
    }
    if end.memory_limit_bytes.is_some() || end.oom_kills > 0 {
        let limit = end.memory_limit_bytes.map_or_else(|| "none".to_owned(), |limit| ByteCount(limit).binary());
        let hits = if end.memory_limit_hits > 0 {
            format!(", limit hit {}", count(end.memory_limit_hits, "time", "times"))
        } else {
            String::new()
        };
        let peak = ByteCount(end.memory_peak_bytes).binary();
        let source = if is_v2 {
            "memory.max, memory.peak, memory.events"
        } else {
            "memory.limit_in_bytes, memory.max_usage_in_bytes, memory.failcnt"
        };
        add("memory", format!("limit {limit}, peak {peak}{hits}"), source);
        let source = if is_v2 { "memory.events: oom_kill" } else { "memory.oom_control: oom_kill" };
        add("memory kills", count(end.oom_kills, "process", "processes"), source);
    }
    if let Some(limit) = end.pids_limit {
        let refused = count(end.forks_refused, "fork", "forks");
        add("processes", format!("limit {limit}, {refused} refused"), "pids.max, pids.events");
    }
    for sent in &end.sent {
        let verb = match sent.by {
            Sender::Kill => "kill",
            Sender::Stop => "stop",
            Sender::StopDeadline => "stop, after its time-out",
            Sender::Remove => "rm -f",
        };
        let at =
            state.finished_at.map_or_else(String::new, |end| format!(", {} before the end", seconds(end, sent.at)));
        add("signal", format!("{} by {verb}{}{at}", name(sent.signal), by(sent)), "the engine's own record");
    }
    if state.restart_count > 0 {
        add("restarts", state.restart_count.to_string(), "the engine's own record");
    }
    list
}

/// The state of an end, taken down for later questions.
pub(crate) fn past_end(record: &Record) -> PastEnd {
    PastEnd { at: record.state.finished_at, exit_code: record.state.exit_code, cause: verdict(record).cause }
}

/// How pid 1 of a container takes a signal; asked when it did not end on it.
pub(crate) fn disposition_of(pid: u32, signal: Signal) -> Option<end::Disposition> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    end::disposition(&status, signal)
}

/// The host was started after the container: it ended with the host.
pub(crate) fn is_older_than_boot(started_at: Option<Timestamp>) -> bool {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    matches!((boot, started_at), (Some(boot), Some(start)) if start.unix_seconds() < boot)
}
