//! Wall time of a client, and the processor time of everything it set in motion (the whole machine's, so keep it quiet).

use std::process::Command;
use std::time::Instant;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub wall_ms: f64,
    pub cpu_ms: f64,
}

/// Processor time of the whole machine so far, nanoseconds: the root of the cpuacct hierarchy, or of v2's `cpu.stat`.
pub fn machine_cpu_ns() -> u64 {
    let v1 = std::fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage");
    if let Ok(text) = v1 {
        return text.trim().parse().expect("cpuacct.usage is a number");
    }
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.stat").expect("a cgroup hierarchy is mounted");
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("cpu.stat has usage_usec");
    usage.parse::<u64>().expect("usage_usec is a number") * 1000
}

/// Runs the command to its end.
///
/// # Panics
/// When it fails: a benchmark of failures says nothing.
pub fn sample(command: &mut Command) -> Sample {
    let cpu = machine_cpu_ns();
    let start = Instant::now();
    let output = command.output().expect("the client can be run");
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Sample { wall_ms, cpu_ms: (machine_cpu_ns() - cpu) as f64 / 1e6 }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
