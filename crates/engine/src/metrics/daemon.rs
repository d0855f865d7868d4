//! Samples of the daemon itself, from its own counters and `/proc/self`.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Number};
use crate::api::Status;
use crate::engine::Engine;

pub(super) fn write(engine: &Engine, exposition: &mut Exposition) {
    let inner = &engine.inner;
    containers(engine, exposition);
    inner.latencies.write(exposition);
    let heavy = crate::recovery::HEAVY_WORK_MAX.saturating_sub(inner.heavy_work.available_permits());
    exposition.add("berth_heavy_jobs", &[], whole(heavy));
    let commits = inner.metadata.commits();
    for (durability, count) in [("immediate", commits.immediate), ("eventual", commits.eventual)] {
        exposition.add("berth_metadata_commits_total", &[("durability", durability)], Number::Whole(count));
    }
    exposition.add("berth_metadata_flushes_total", &[], Number::Whole(commits.flushes));
    if let Ok(file) = std::fs::metadata(inner.paths.metadata()) {
        exposition.add("berth_metadata_file_bytes", &[], Number::Whole(file.len()));
    }
    exposition.add("berth_events_total", &[], Number::Whole(inner.events.last_sequence()));
    exposition.add("berth_event_subscribers", &[], whole(inner.events.subscribers()));
    let collections = inner.images.collections();
    exposition.add("berth_gc_runs_total", &[], Number::Whole(collections.runs));
    for (kind, count) in [("blob", collections.blobs), ("layer", collections.layers)] {
        exposition.add("berth_gc_removed_total", &[("kind", kind)], Number::Whole(count));
    }
    exposition.add("berth_gc_bytes_total", &[], Number::Whole(collections.bytes));
    exposition.add(
        "berth_trash_runs_total",
        &[],
        Number::Whole(inner.trash_runs.load(std::sync::atomic::Ordering::Relaxed)),
    );
    let entries = std::fs::read_dir(inner.paths.trash()).map(Iterator::count).unwrap_or(0);
    exposition.add("berth_trash_entries", &[], whole(entries));
    let walks = inner.images.walks();
    for (kind, count) in [("layer", walks.layers), ("writable", walks.writable)] {
        exposition.add("berth_tree_walks_total", &[("kind", kind)], Number::Whole(count));
    }
    exposition.add("berth_build_info", &[("version", env!("CARGO_PKG_VERSION"))], Number::Whole(1));
    process(exposition);
}

fn whole(count: usize) -> Number {
    Number::Whole(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Every state has its line, so that a graph does not end where a state becomes empty.
fn containers(engine: &Engine, exposition: &mut Exposition) {
    const STATES: [(Status, &str); 7] = [
        (Status::Created, "created"),
        (Status::Running, "running"),
        (Status::Paused, "paused"),
        (Status::Restarting, "restarting"),
        (Status::Removing, "removing"),
        (Status::Exited, "exited"),
        (Status::Dead, "dead"),
    ];
    let all: Vec<Status> = engine.inner.registry.all().iter().map(|container| container.status()).collect();
    for (status, name) in STATES {
        let count = all.iter().filter(|own| **own == status).count();
        exposition.add("berth_containers", &[("state", name)], whole(count));
    }
}

/// The names every Prometheus client library uses.
fn process(exposition: &mut Exposition) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers = stat_numbers(&stat, &boot, rustix::param::clock_ticks_per_second(), rustix::param::page_size());
    for (family, number) in numbers {
        exposition.add(family, &[], number);
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(1);
    // The directory itself is open while it is read.
    exposition.add("process_open_fds", &[], whole(descriptors.saturating_sub(1)));
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        exposition.add("process_max_fds", &[], Number::Whole(limit));
    }
}

/// Fields of proc_pid_stat(5), counted after the name: utime 14, stime 15, num_threads 20, starttime 22, vsize 23, rss 24.
fn stat_numbers(stat: &str, boot: &str, ticks: u64, page: usize) -> BTreeMap<&'static str, Number> {
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default()
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let nanoseconds = |count: u64| count.saturating_mul(1_000_000_000 / ticks.max(1));
    let started = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok()).unwrap_or(0);
    BTreeMap::from([
        ("process_cpu_seconds_total", Number::Nanoseconds(nanoseconds(field(14) + field(15)))),
        ("process_threads", Number::Whole(field(20))),
        (
            "process_start_time_seconds",
            Number::Nanoseconds(started.saturating_mul(1_000_000_000) + nanoseconds(field(22))),
        ),
        ("process_virtual_memory_bytes", Number::Whole(field(23))),
        ("process_resident_memory_bytes", Number::Whole(field(24).saturating_mul(page as u64))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_stat() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 1 0 1 0 250 50 0 0 20 0 3 0 1000 4096000 20 1";
        let numbers = stat_numbers(stat, "cpu 1\nbtime 1700000000\n", 100, 4096);
        let shown = |name: &str| numbers[name].to_string();
        assert_eq!(shown("process_cpu_seconds_total"), "3.000000000");
        assert_eq!(shown("process_threads"), "3");
        assert_eq!(shown("process_start_time_seconds"), "1700000010.000000000");
        assert_eq!(shown("process_virtual_memory_bytes"), "4096000");
        assert_eq!(shown("process_resident_memory_bytes"), "81920");
    }
}
