//! `make bench`: the same workloads by Berth, Debian's docker, containerd and runc, in turns, in one run; medians and ratios.
//!
//! Runs itself inside mount, network and pid namespaces of its own, with private daemons below one directory. Machines are
//! noisy: only ratios count.

mod engine;
mod measure;
mod memory;
mod report;
mod workload;

use std::process::{Command, ExitCode};

const INSIDE: &str = "--inside";

const USAGE: &str = "\
usage: berth-bench [--runs N] [--only WORD]
  --runs N      runs of each workload by each engine (default 15)
  --only WORD   only workloads whose name contains WORD";

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct Options {
    pub runs: usize,
    pub only: String,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == INSIDE) {
        let Some(options) = parse(&words[1..]) else { return ExitCode::from(2) };
        berth_network::loopback_up().expect("lo of our own namespace comes up");
        engine::prepare_host_view();
        report::print(&workload::run_all(&options));
        return ExitCode::SUCCESS;
    }
    if parse(&words).is_none() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let own = std::env::current_exe().expect("the system knows where we are");
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child", "--"])
        .arg(own)
        .arg(INSIDE)
        .args(&words)
        .status()
        .expect("unshare is part of util-linux");
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

fn parse(words: &[String]) -> Option<Options> {
    let mut options = Options { runs: 15, only: String::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => options.runs = words.next()?.parse().ok().filter(|n| *n > 0)?,
            "--only" => options.only = words.next()?.clone(),
            _ => return None,
        }
    }
    Some(options)
}
