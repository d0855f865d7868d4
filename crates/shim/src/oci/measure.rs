//! `events --stats` of a runtime whose containers have no cgroup on the host (gVisor told to leave them alone).

use berth_cgroup::Stats;

use super::{CommandError, OciRuntime};

#[derive(serde::Deserialize)]
struct Event {
    data: Data,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Data {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Cpu {
    usage: CpuUsage,
}

/// Nanoseconds.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct CpuUsage {
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Memory {
    usage: MemoryUsage,
}

/// Bytes.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct MemoryUsage {
    usage: u64,
    max: u64,
    failcnt: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

pub(super) fn stats(runtime: &OciRuntime, json: &[u8]) -> Result<Stats, CommandError> {
    let Event { data } = runtime.parse("events", json)?;
    let mut stats = Stats::default();
    stats.cpu.total_ns = data.cpu.usage.total;
    stats.cpu.system_ns = data.cpu.usage.kernel;
    stats.cpu.user_ns = data.cpu.usage.user;
    stats.memory.usage = data.memory.usage.usage;
    stats.memory.max_usage = data.memory.usage.max;
    stats.memory.failcnt = data.memory.usage.failcnt;
    stats.pids.current = data.pids.current;
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runcs_form() {
        let runtime = OciRuntime { binary: "/r".into(), arguments: Vec::new(), root: "/s".into() };
        let json = br#"{"type":"stats","id":"x","data":{"cpu":{"usage":{"total":5,"user":3}},
            "memory":{"usage":{"usage":4096}},"pids":{"current":2},"blkio":{}}}"#;
        let measured = stats(&runtime, json).unwrap();
        assert_eq!((measured.cpu.total_ns, measured.memory.usage, measured.pids.current), (5, 4096, 2));
        assert!(stats(&runtime, b"no").is_err());
    }
}
