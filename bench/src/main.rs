//! `make bench`: the same workloads by Berth, Debian's docker, containerd, podman and runc, in turns, in one run; medians and ratios.
//!
//! Runs itself inside mount, network and pid namespaces of its own, with private daemons below one directory. Machines are
//! noisy: only ratios count.

mod ctr_face;
mod engine;
mod floor;
mod images;
mod measure;
mod memory;
mod meter;
mod oci;
mod report;
mod storage;
mod workload;

use std::process::{Command, ExitCode};

const INSIDE: &str = "--inside";
/// The runtimes' part, in a mount namespace without the unified hierarchy, which crun needs on a hybrid host.
const INSIDE_OCI: &str = "--inside-oci";
/// Images, with podman among the engines.
const INSIDE_IMAGES: &str = "--inside-images";

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
    match words.first().map(String::as_str) {
        Some(INSIDE) => inside(&words[1..], |options| {
            berth_network::loopback_up().expect("lo of our own namespace comes up");
            engine::prepare_host_view();
            workload::run_all(options)
        }),
        Some(INSIDE_OCI) => inside(&words[1..], |options| {
            engine::prepare_host_view();
            engine::without_unified_hierarchy();
            oci::run_all(options)
        }),
        Some(INSIDE_IMAGES) => inside(&words[1..], |options| {
            berth_network::loopback_up().expect("lo of our own namespace comes up");
            engine::prepare_host_view();
            // podman makes directories for hierarchies that are not mounted; here they are not the host's.
            engine::without_unified_hierarchy();
            images::run_all(options)
        }),
        _ if parse(&words).is_none() => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        _ => {
            let codes = [INSIDE_OCI, INSIDE, INSIDE_IMAGES].map(|part| in_namespaces(part, &words));
            ExitCode::from(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
        }
    }
}

fn inside(words: &[String], part: impl FnOnce(&Options) -> report::Table) -> ExitCode {
    let Some(options) = parse(words) else { return ExitCode::from(2) };
    let table = part(&options);
    println!("{}", table.to_markdown());
    meter::remove_all();
    match std::fs::remove_dir_all(engine::directory()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("cannot remove the benchmark's files: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Runs one part of us in namespaces of its own; its exit code.
fn in_namespaces(part: &str, words: &[String]) -> u8 {
    let own = std::env::current_exe().expect("the system knows where we are");
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child", "--"])
        .arg(own)
        .arg(part)
        .args(words)
        .status()
        .expect("unshare is part of util-linux");
    u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)
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
