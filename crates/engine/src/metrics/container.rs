//! Samples of one running container: the control group's files, pressure, and the counters of its network namespace.

use std::collections::BTreeMap;
use std::path::Path;

use berth_cgroup::{BlockIoEntry, Cgroup};

use super::exposition::{Exposition, Number};
use crate::engine::Engine;
use crate::record::Record;

/// Longest pressure file: two short lines.
const PRESSURE_BYTES_MAX: usize = 4096;

type Labels<'a> = [(&'static str, &'a str); 3];

/// A container that ends while it is read has the samples that were still there.
pub(super) fn write(engine: &Engine, record: &Record, exposition: &mut Exposition) {
    let id = record.id.to_string();
    let labels: Labels<'_> = [("id", &id), ("name", &record.name), ("image", &record.config.image)];
    life(record, &labels, exposition);
    network(record.state.pid, &labels, exposition);
    let Some(layout) = &engine.inner.facts.cgroups else { return };
    let Ok(group) = Cgroup::open(layout, &engine.cgroup_path(record)) else { return };
    let Ok(stats) = group.stats() else { return };
    cpu(&stats.cpu, &labels, exposition);
    memory(&stats.memory, kernel_memory(&group, &stats.memory.stat), &labels, exposition);
    exposition.add("berth_container_processes", &labels, Number::Whole(stats.pids.current));
    optional(exposition, "berth_container_processes_limit", &labels, stats.pids.limit);
    exposition.add("berth_container_forks_refused_total", &labels, Number::Whole(stats.pids.refused));
    block_io(
        &stats.block_io.service_bytes,
        ["berth_container_io_read_bytes_total", "berth_container_io_write_bytes_total"],
        &labels,
        exposition,
    );
    block_io(
        &stats.block_io.serviced,
        ["berth_container_io_reads_total", "berth_container_io_writes_total"],
        &labels,
        exposition,
    );
    for (size, pages) in &stats.hugetlb {
        let labels = with(&labels, "size", size);
        exposition.add("berth_container_hugetlb_usage_bytes", &labels, Number::Whole(pages.usage));
        exposition.add("berth_container_hugetlb_failures_total", &labels, Number::Whole(pages.failcnt));
    }
    if let Some(unified) = group.paths().get("") {
        pressure(unified, &labels, exposition);
    }
}

fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> [(&'static str, &'a str); 4] {
    [labels[0], labels[1], labels[2], (name, value)]
}

fn optional(exposition: &mut Exposition, family: &'static str, labels: &Labels<'_>, number: Option<u64>) {
    if let Some(number) = number {
        exposition.add(family, labels, Number::Whole(number));
    }
}

fn life(record: &Record, labels: &Labels<'_>, exposition: &mut Exposition) {
    let restarts = Number::Whole(record.state.restart_count.into());
    exposition.add("berth_container_restarts_total", labels, restarts);
    if let Some(started) = record.state.started_at {
        let ns = u64::try_from(started.0).unwrap_or(0);
        exposition.add("berth_container_start_time_seconds", labels, Number::Nanoseconds(ns));
    }
}

fn cpu(cpu: &berth_cgroup::CpuStats, labels: &Labels<'_>, exposition: &mut Exposition) {
    for (family, number) in [
        ("berth_container_cpu_usage_seconds_total", Number::Nanoseconds(cpu.total_ns)),
        ("berth_container_cpu_user_seconds_total", Number::Nanoseconds(cpu.user_ns)),
        ("berth_container_cpu_system_seconds_total", Number::Nanoseconds(cpu.system_ns)),
        ("berth_container_cpu_periods_total", Number::Whole(cpu.periods)),
        ("berth_container_cpu_throttled_periods_total", Number::Whole(cpu.throttled_periods)),
        ("berth_container_cpu_throttled_seconds_total", Number::Nanoseconds(cpu.throttled_ns)),
    ] {
        exposition.add(family, labels, number);
    }
}

/// The first of these keys that the kernel has: v1 and v2 name them differently.
fn of_stat(stat: &BTreeMap<String, u64>, keys: &[&str]) -> u64 {
    keys.iter().find_map(|key| stat.get(*key)).copied().unwrap_or(0)
}

/// v2 counts it in memory.stat (5.18 and newer; before, its parts), v1 in a file of its own.
fn kernel_memory(group: &Cgroup, stat: &BTreeMap<String, u64>) -> u64 {
    let v1 = group.paths().get("memory").and_then(|directory| {
        std::fs::read_to_string(directory.join("memory.kmem.usage_in_bytes")).ok()?.trim().parse().ok()
    });
    v1.or_else(|| stat.get("kernel").copied()).unwrap_or_else(|| {
        ["kernel_stack", "pagetables", "percpu", "slab", "sock"].iter().map(|key| of_stat(stat, &[key])).sum()
    })
}

fn memory(memory: &berth_cgroup::MemoryStats, kernel: u64, labels: &Labels<'_>, exposition: &mut Exposition) {
    let stat = &memory.stat;
    // The v1 counters with total_ are those of the whole group and its children.
    let inactive = of_stat(stat, &["total_inactive_file", "inactive_file"]);
    // v1 counts memory and swap together.
    let swap = if stat.contains_key("total_inactive_file") {
        of_stat(stat, &["total_swap", "swap"])
    } else {
        memory.swap_usage
    };
    for (family, number) in [
        ("berth_container_memory_usage_bytes", memory.usage),
        ("berth_container_memory_working_set_bytes", memory.usage.saturating_sub(inactive)),
        ("berth_container_memory_cache_bytes", of_stat(stat, &["total_cache", "cache", "file"])),
        ("berth_container_memory_anon_bytes", of_stat(stat, &["total_rss", "rss", "anon"])),
        ("berth_container_memory_kernel_bytes", kernel),
        ("berth_container_memory_swap_bytes", swap),
        ("berth_container_memory_peak_bytes", memory.max_usage),
        ("berth_container_memory_limit_hits_total", memory.failcnt),
        ("berth_container_oom_kills_total", memory.oom_kills),
    ] {
        exposition.add(family, labels, Number::Whole(number));
    }
    optional(exposition, "berth_container_memory_limit_bytes", labels, memory.limit);
}

fn block_io(entries: &[BlockIoEntry], families: [&'static str; 2], labels: &Labels<'_>, exposition: &mut Exposition) {
    for entry in entries {
        let family = match entry.op.as_str() {
            "Read" | "read" => families[0],
            "Write" | "write" => families[1],
            _ => continue,
        };
        let device = format!("{}:{}", entry.major, entry.minor);
        exposition.add(family, &with(labels, "device", &device), Number::Whole(entry.value));
    }
}

/// PSI counts on the v2 hierarchy, of a hybrid host too; a kernel without it has no such files.
fn pressure(unified: &Path, labels: &Labels<'_>, exposition: &mut Exposition) {
    for resource in ["cpu", "memory", "io"] {
        let Ok(text) = std::fs::read_to_string(unified.join(format!("{resource}.pressure"))) else { continue };
        for (kind, total_us) in pressure_totals(text.get(..PRESSURE_BYTES_MAX).unwrap_or(&text)) {
            let [id, name, image] = *labels;
            let labels = [id, name, image, ("resource", resource), ("kind", kind)];
            exposition.add("berth_container_pressure_seconds_total", &labels, Number::Microseconds(total_us));
        }
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`
fn pressure_totals(text: &str) -> Vec<(&str, u64)> {
    text.lines()
        .filter_map(|line| {
            let (kind, rest) = line.split_once(' ')?;
            let total = rest.split(' ').find_map(|word| word.strip_prefix("total="))?;
            Some((kind, total.parse().ok()?))
        })
        .collect()
}

fn network(pid: u32, labels: &Labels<'_>, exposition: &mut Exposition) {
    for (interface, counters) in crate::stats::networks(pid) {
        let labels = with(labels, "interface", &interface);
        for (family, number) in [
            ("berth_container_network_receive_bytes_total", counters.rx_bytes),
            ("berth_container_network_receive_packets_total", counters.rx_packets),
            ("berth_container_network_receive_errors_total", counters.rx_errors),
            ("berth_container_network_receive_dropped_total", counters.rx_dropped),
            ("berth_container_network_transmit_bytes_total", counters.tx_bytes),
            ("berth_container_network_transmit_packets_total", counters.tx_packets),
            ("berth_container_network_transmit_errors_total", counters.tx_errors),
            ("berth_container_network_transmit_dropped_total", counters.tx_dropped),
        ] {
            exposition.add(family, &labels, Number::Whole(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        assert_eq!(pressure_totals(text), [("some", 12), ("full", 3)]);
        assert_eq!(pressure_totals("nonsense"), []);
    }

    #[test]
    fn both_versions_have_the_same_families() {
        let labels: Labels<'_> = [("id", "a"), ("name", "b"), ("image", "c")];
        let text = |stat: &[(&str, u64)]| {
            let stat = stat.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            let sample =
                berth_cgroup::MemoryStats { usage: 100, stat, swap_usage: 7, ..berth_cgroup::MemoryStats::default() };
            let mut exposition = Exposition::default();
            memory(&sample, 5, &labels, &mut exposition);
            exposition.finish()
        };
        let v1 = text(&[
            ("total_inactive_file", 30),
            ("total_cache", 40),
            ("total_rss", 20),
            ("total_swap", 3),
            ("cache", 1),
            ("rss", 1),
        ]);
        let v2 = text(&[("inactive_file", 30), ("file", 40), ("anon", 20)]);
        for text in [&v1, &v2] {
            assert!(text.contains("working_set_bytes{id=\"a\",name=\"b\",image=\"c\"} 70\n"), "{text}");
            assert!(text.contains("cache_bytes{id=\"a\",name=\"b\",image=\"c\"} 40\n"), "{text}");
            assert!(text.contains("anon_bytes{id=\"a\",name=\"b\",image=\"c\"} 20\n"), "{text}");
        }
        assert!(v1.contains("swap_bytes{id=\"a\",name=\"b\",image=\"c\"} 3\n"), "{v1}");
        assert!(v2.contains("swap_bytes{id=\"a\",name=\"b\",image=\"c\"} 7\n"), "{v2}");
    }
}
