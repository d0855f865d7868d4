//! One sample of `GET /containers/{id}/stats`. The sample before it comes along, so a client can compute rates.

use std::collections::BTreeMap;

use berth_engine::api::Stats;
use serde_json::{Map, Value, json};

use super::inspect::time_text;

fn cpu(stats: &Stats) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": stats.cpu_total_ns,
            "percpu_usage": stats.cpu_per_cpu_ns,
            "usage_in_kernelmode": stats.cpu_system_ns,
            "usage_in_usermode": stats.cpu_user_ns,
        },
        "system_cpu_usage": stats.system_cpu_ns,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": stats.cpu_periods,
            "throttled_periods": stats.cpu_throttled_periods,
            "throttled_time": stats.cpu_throttled_ns,
        },
    })
}

fn blkio(entries: &[(u64, u64, String, u64)]) -> Value {
    entries
        .iter()
        .map(|(major, minor, op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
        .collect()
}

fn networks(stats: &Stats) -> Value {
    stats
        .networks
        .iter()
        .map(|(name, counters)| (name.clone(), serde_json::to_value(counters).unwrap_or_default()))
        .collect::<Map<String, Value>>()
        .into()
}

fn memory(stats: &Stats, memory_stats: &BTreeMap<String, u64>) -> Value {
    json!({
        "usage": stats.memory_usage,
        "max_usage": stats.memory_max_usage,
        "limit": stats.memory_limit,
        "failcnt": stats.oom_kills,
        "stats": memory_stats,
    })
}

pub(crate) fn into_wire(id: &str, name: &str, stats: &Stats, before: Option<&Stats>) -> Value {
    let nothing = Stats::default();
    let before = before.unwrap_or(&nothing);
    json!({
        "id": id,
        "name": format!("/{name}"),
        "read": time_text(stats.read_at),
        "preread": time_text(before.read_at),
        "num_procs": 0,
        "pids_stats": { "current": stats.pids_current, "limit": stats.pids_limit },
        "blkio_stats": {
            "io_service_bytes_recursive": blkio(&stats.blkio_bytes),
            "io_serviced_recursive": blkio(&stats.blkio_ops),
        },
        "storage_stats": {},
        "cpu_stats": cpu(stats),
        "precpu_stats": cpu(before),
        "memory_stats": memory(stats, &stats.memory_stats),
        "networks": networks(stats),
    })
}
