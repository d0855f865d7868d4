//! What an idle container costs an engine: the shims' proportional memory and the daemons' growth.

use std::fs;

/// PSS of a process in KiB.
pub fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("Pss:"))
        .and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Pids of every process whose name starts so.
pub fn named(prefix: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if fs::read_to_string(entry.path().join("cmdline"))
            .unwrap_or_default()
            .split('\0')
            .next()
            .is_some_and(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(prefix)))
        {
            pids.push(pid);
        }
    }
    pids
}
