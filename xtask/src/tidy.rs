//! Rules that no compiler checks: ranks, unsafe, and paths below a container's root.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

/// Crates by rank; a crate may depend only on lower ranks. (`proto` is the upper half of rank 0: it speaks of ids and classes.)
const RANKS: &[&[&str]] = &[
    &["types", "sys"],
    &["proto", "containerd-api"],
    &["cgroup", "seccomp", "rootfs", "oci"],
    &["content", "snapshot", "metadata", "runtime", "shim-client", "network"],
    &["registry", "snapshot-proxy"],
    &["image", "shim"],
    &["core"],
    &["engine"],
    &["docker", "grpc", "cri"],
    &["cli", "daemon", "runb", "init", "hello"],
];

/// Crates in which a path below a container's root is at hand: no path-taking call that creates or follows.
const DESCRIPTORS_ONLY: &[&str] = &["rootfs", "runtime"];
const BANNED_PATH_CALLS: &[&str] = &["fs::canonicalize", "fs::create_dir_all", "fs::write(", "File::create("];
/// Crates that must stay single-threaded so that clone and setns are safe.
const NO_THREADS: &[&str] = &["types", "sys", "proto", "cgroup", "seccomp", "rootfs", "oci", "runtime"];

pub(crate) fn tidy() -> Result<(), Failure> {
    let mut findings = String::new();
    let ranks: BTreeMap<&str, usize> =
        RANKS.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect();
    for entry in std::fs::read_dir("crates")? {
        let directory = entry?.path();
        let name = directory.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let Some(rank) = ranks.get(name.as_str()) else {
            writeln!(findings, "crates/{name}: has no rank; add it to xtask/src/tidy.rs")?;
            continue;
        };
        check_ranks(&directory, &name, *rank, &ranks, &mut findings)?;
        for file in rust_files(&directory.join("src"))? {
            check_source(&file, &name, &mut findings)?;
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(format!("tidy found:\n{findings}").into()) }
}

fn check_ranks(
    directory: &Path,
    name: &str,
    rank: usize,
    ranks: &BTreeMap<&str, usize>,
    out: &mut String,
) -> Result<(), Failure> {
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml"))?;
    let normal = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or("");
    for line in normal.lines() {
        let Some(dependency) = line.strip_prefix("berth-") else { continue };
        let dependency = dependency.split(['.', ' ', '=']).next().unwrap_or("");
        match ranks.get(dependency) {
            Some(lower) if *lower < rank => {}
            _ => writeln!(out, "crates/{name} (rank {rank}) depends on {dependency}, which is not of a lower rank")?,
        }
    }
    Ok(())
}

fn check_source(file: &Path, name: &str, out: &mut String) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)?;
    let product = text.split("#[cfg(test)]").next().unwrap_or("");
    for (number, line) in product.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        let place = format!("{}:{}", file.display(), number + 1);
        if name != "sys" && (code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")) {
            writeln!(out, "{place}: unsafe outside crates/sys")?;
        }
        if DESCRIPTORS_ONLY.contains(&name) && BANNED_PATH_CALLS.iter().any(|call| code.contains(call)) {
            writeln!(out, "{place}: takes a path; use a descriptor (rootfs::RootDir)")?;
        }
        if NO_THREADS.contains(&name) && code.contains("thread::spawn") {
            writeln!(out, "{place}: starts a thread; clone and setns need a single one")?;
        }
    }
    Ok(())
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}
