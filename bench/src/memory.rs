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

/// How far the resident memory of some processes grows.
#[derive(Debug)]
pub struct Peak {
    before: Vec<(u32, u64)>,
}

impl Peak {
    /// From now on; the kernel's high-water marks are set back.
    pub fn begin(pids: &[u32]) -> Self {
        for pid in pids {
            fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        }
        Self { before: pids.iter().map(|pid| (*pid, status_kib(*pid, "VmRSS:"))).collect() }
    }

    /// The sum of what each grew at most.
    pub fn grown_mib(&self) -> f64 {
        let grown = self.before.iter().map(|(pid, before)| status_kib(*pid, "VmHWM:").saturating_sub(*before));
        grown.sum::<u64>() as f64 / 1024.0
    }
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
