//! What a piece of work adds to a process's memory, at its peak.

use std::fs;

#[derive(Debug)]
pub struct Growth {
    pid: u32,
    before_kib: u64,
}

impl Growth {
    /// The peak starts again from what is in use now.
    pub fn begin(pid: u32) -> Self {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before_kib: status_kib(pid, "VmRSS") }
    }

    /// By how much the process had more than at the beginning, at the most.
    pub fn mib(&self) -> u64 {
        status_kib(self.pid, "VmHWM").saturating_sub(self.before_kib) >> 10
    }
}

fn status_kib(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}
