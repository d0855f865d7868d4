//! Candidates take turns; each has its wall time taken per run, and its processor time over all of its runs.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::meter::Meter;

/// One candidate's figures for one workload.
#[derive(Debug, Clone)]
pub struct Samples {
    pub name: &'static str,
    pub wall_ms: Vec<f64>,
    /// Mean per run, with what the candidate still did after its client had ended.
    pub cpu_ms: f64,
}

/// Something that can be measured in turns with others.
pub trait Candidate {
    fn name(&self) -> &'static str;
    fn meter(&self) -> &Meter;
}

/// A B C A B C …, after one round that does not count. `once` gives the wall time of one run in milliseconds.
pub fn in_turns<C: Candidate>(candidates: &[&C], runs: usize, mut once: impl FnMut(&C, usize) -> f64) -> Vec<Samples> {
    let mut samples: Vec<Samples> =
        candidates.iter().map(|c| Samples { name: c.name(), wall_ms: Vec::new(), cpu_ms: 0.0 }).collect();
    let mut before = vec![0; candidates.len()];
    for round in 0..=runs {
        for (index, candidate) in candidates.iter().enumerate() {
            candidate.meter().enter();
            if round == 1 {
                before[index] = candidate.meter().usage_ns();
            }
            let wall_ms = once(candidate, round);
            if round > 0 {
                samples[index].wall_ms.push(wall_ms);
            }
        }
    }
    for (index, candidate) in candidates.iter().enumerate() {
        samples[index].cpu_ms = (candidate.meter().usage_ns() - before[index]) as f64 / 1e6 / runs as f64;
    }
    samples
}

/// Runs the command to its end; milliseconds.
///
/// # Panics
/// When it fails: a benchmark of failures says nothing.
pub fn timed(command: &mut Command) -> f64 {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output().expect("the client can be run");
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    wall_ms
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of `part` of all values does not exceed.
pub fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return f64::NAN;
    }
    values[((values.len() - 1) as f64 * part).round() as usize]
}
