//! Whether a kernel file says what was written to it: the kernel rounds, reorders and has its own words for "unlimited". Pure.

use crate::host::list_items;

const PAGE_BYTES: u64 = 4096;
/// v1 counts pages in a signed 64-bit number: everything from here on is no limit.
const UNLIMITED_FROM: u64 = 0x7fff_ffff_ffff_f000;

/// What a new group says where nobody asked, by file. Files whose default depends on the parent or the kernel are not here.
const DEFAULTS: [(&str, &str); 14] = [
    ("memory.limit_in_bytes", "-1"),
    ("memory.memsw.limit_in_bytes", "-1"),
    ("memory.soft_limit_in_bytes", "-1"),
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("memory.low", "0"),
    ("memory.swap.max", "max"),
    ("cpu.shares", "1024"),
    ("cpu.cfs_quota_us", "-1"),
    ("cpu.weight", "100"),
    ("cpu.max", "max 100000"),
    ("pids.max", "max"),
    ("freezer.state", "THAWED"),
    ("cgroup.freeze", "0"),
];

/// Files worth a line even where nobody asked.
pub(super) fn defaults() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEFAULTS.into_iter()
}

/// Whether `actual`, read from `file`, is `asked`, written to it.
pub(super) fn agrees(file: &str, asked: &str, actual: &str) -> bool {
    let (asked, actual) = (asked.trim(), actual.trim());
    if asked == actual {
        return true;
    }
    if is_unlimited(asked) || is_unlimited(actual) {
        return is_unlimited(asked) && is_unlimited(actual);
    }
    match file {
        "cpuset.cpus" | "cpuset.mems" => list_items(asked).is_some() && list_items(asked) == list_items(actual),
        "memory.oom_control" => actual.lines().any(|line| line == format!("oom_kill_disable {asked}")),
        _ if file.starts_with("memory.") || file.starts_with("hugetlb.") => {
            let pages = |text: &str| text.parse::<u64>().ok().map(|bytes| bytes / PAGE_BYTES);
            pages(asked).is_some() && pages(asked) == pages(actual)
        }
        // One line per device: `8:0 rbps=1024` or `8:0 1048576`; what else the line says was not asked.
        _ => actual.lines().any(|line| has_words(line, asked)),
    }
}

fn has_words(line: &str, asked: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    // `io.weight` of all devices reads back as `default 100`.
    let rest = words.strip_prefix(&["default"]).unwrap_or(&words);
    asked.split_whitespace().all(|word| rest.contains(&word))
        && rest.first() == asked.split_whitespace().next().as_ref()
}

fn is_unlimited(text: &str) -> bool {
    matches!(text, "-1" | "max") || text.parse::<u64>().is_ok_and(|number| number >= UNLIMITED_FROM)
}

/// The flag behind a limit of the cgroup crate's plan.
pub(super) fn flag(limit: &str, asked: &crate::config::Resources) -> &'static str {
    match limit {
        "memory.limit" => "flag --memory",
        "memory.swap" if asked.memory_swap.is_some_and(|swap| swap != 0) => "flag --memory-swap",
        "memory.swap" => "default: as much swap as --memory again",
        "memory.reservation" => "flag --memory-reservation",
        "memory.swappiness" => "flag --memory-swappiness",
        "memory.disable_oom_killer" => "flag --oom-kill-disable",
        "cpu.shares" => "flag --cpu-shares",
        "cpu.quota" | "cpu.period" if asked.nano_cpus.is_some_and(|cpus| cpus > 0) => "flag --cpus",
        "cpu.quota" => "flag --cpu-quota",
        "cpu.period" => "flag --cpu-period",
        "cpu.cpus" => "flag --cpuset-cpus",
        "cpu.mems" => "flag --cpuset-mems",
        "cpu.realtime_period" => "flag --cpu-rt-period",
        "cpu.realtime_runtime" => "flag --cpu-rt-runtime",
        "pids.limit" => "flag --pids-limit",
        "block_io.weight" => "flag --blkio-weight",
        "block_io.weight_device" => "flag --blkio-weight-device",
        "block_io.read_bps" => "flag --device-read-bps",
        "block_io.write_bps" => "flag --device-write-bps",
        "block_io.read_iops" => "flag --device-read-iops",
        "block_io.write_iops" => "flag --device-write-iops",
        _ => "asked for",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words() {
        for (file, asked, actual) in [
            ("memory.limit_in_bytes", "67108864", "67108864\n"),
            ("memory.limit_in_bytes", "67108865", "67108864"),
            ("memory.limit_in_bytes", "-1", "9223372036854771712"),
            ("memory.max", "max", "max"),
            ("cpuset.cpus", "0,1", "0-1"),
            ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
            ("blkio.throttle.read_bps_device", "254:0 1048576", "253:0 5\n254:0 1048576"),
            ("io.max", "254:0 rbps=1024", "254:0 rbps=1024 wbps=max riops=max wiops=max"),
            ("io.weight", "200", "default 200\n254:0 50"),
            ("cpu.max", "50000 100000", "50000 100000"),
        ] {
            assert!(agrees(file, asked, actual), "{file}: {asked} and {actual}");
        }
        for (file, asked, actual) in [
            ("memory.limit_in_bytes", "67108864", "134217728"),
            ("memory.limit_in_bytes", "67108864", "9223372036854771712"),
            ("memory.limit_in_bytes", "-1", "67108864"),
            ("cpuset.cpus", "0", "0-1"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0"),
            ("blkio.throttle.read_bps_device", "254:0 1048576", "254:0 1048577"),
            ("blkio.throttle.read_bps_device", "254:0 1048576", ""),
            ("io.max", "254:0 rbps=1024", "253:0 rbps=1024"),
            ("cpu.max", "50000 100000", "max 100000"),
            ("pids.max", "10", "11"),
        ] {
            assert!(!agrees(file, asked, actual), "{file}: {asked} and {actual}");
        }
    }
}
