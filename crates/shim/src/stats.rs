//! Measurements of the container's cgroup as the messages engines expect: `cgroups.v1.Metrics` on v1 and hybrid hosts, else v2's.

use berth_cgroup::{BlockIoEntry, Layout, Stats, Version};
use berth_proto::protobuf::MessageField;
use berth_proto::protobuf::well_known_types::any::Any;
use berth_proto::{cgroup_v1 as v1, cgroup_v2 as v2, pack};

/// A limit that does not exist, as the kernel's files and the field's messages write it.
const UNLIMITED: u64 = u64::MAX;

pub(crate) fn message(layout: &Layout, stats: &Stats) -> Any {
    match layout.version {
        Version::V1 | Version::Hybrid => pack("io.containerd.cgroups.v1", &v1_metrics(stats)),
        Version::V2 => pack("io.containerd.cgroups.v2", &v2_metrics(stats)),
    }
}

fn v1_metrics(stats: &Stats) -> v1::Metrics {
    let usage = v1::CPUUsage {
        total: stats.cpu.total_ns,
        kernel: stats.cpu.system_ns,
        user: stats.cpu.user_ns,
        per_cpu: stats.cpu.percpu_ns.clone(),
        ..Default::default()
    };
    let throttling = v1::Throttle {
        periods: stats.cpu.periods,
        throttled_periods: stats.cpu.throttled_periods,
        throttled_time: stats.cpu.throttled_ns,
        ..Default::default()
    };
    let cpu = v1::CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    };
    let pids =
        v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit.unwrap_or_default(), ..Default::default() };
    let blkio = v1::BlkIOStat {
        io_service_bytes_recursive: stats.block_io.service_bytes.iter().map(v1_entry).collect(),
        io_serviced_recursive: stats.block_io.serviced.iter().map(v1_entry).collect(),
        ..Default::default()
    };
    v1::Metrics {
        cpu: MessageField::some(cpu),
        memory: MessageField::some(v1_memory(stats)),
        pids: MessageField::some(pids),
        blkio: MessageField::some(blkio),
        ..Default::default()
    }
}

fn v1_memory(stats: &Stats) -> v1::MemoryStat {
    let memory = &stats.memory;
    let of = |name: &str| memory.stat.get(name).copied().unwrap_or_default();
    let usage = v1::MemoryEntry {
        usage: memory.usage,
        max: memory.max_usage,
        limit: memory.limit.unwrap_or(UNLIMITED),
        failcnt: memory.failcnt,
        ..Default::default()
    };
    let swap = v1::MemoryEntry {
        usage: memory.swap_usage,
        limit: memory.swap_limit.unwrap_or(UNLIMITED),
        ..Default::default()
    };
    v1::MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        usage: MessageField::some(usage),
        swap: MessageField::some(swap),
        ..Default::default()
    }
}

fn v1_entry(entry: &BlockIoEntry) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

fn v2_metrics(stats: &Stats) -> v2::Metrics {
    const NANOS_PER_MICRO: u64 = 1000;
    let cpu = v2::CPUStat {
        usage_usec: stats.cpu.total_ns / NANOS_PER_MICRO,
        user_usec: stats.cpu.user_ns / NANOS_PER_MICRO,
        system_usec: stats.cpu.system_ns / NANOS_PER_MICRO,
        nr_periods: stats.cpu.periods,
        nr_throttled: stats.cpu.throttled_periods,
        throttled_usec: stats.cpu.throttled_ns / NANOS_PER_MICRO,
        ..Default::default()
    };
    let pids =
        v2::PidsStat { current: stats.pids.current, limit: stats.pids.limit.unwrap_or_default(), ..Default::default() };
    let of = |name: &str| stats.memory.stat.get(name).copied().unwrap_or_default();
    let memory = v2::MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        usage: stats.memory.usage,
        usage_limit: stats.memory.limit.unwrap_or(UNLIMITED),
        swap_usage: stats.memory.swap_usage,
        swap_limit: stats.memory.swap_limit.unwrap_or(UNLIMITED),
        ..Default::default()
    };
    let memory_events = v2::MemoryEvents { oom_kill: stats.memory.oom_kills, ..Default::default() };
    v2::Metrics {
        cpu: MessageField::some(cpu),
        pids: MessageField::some(pids),
        memory: MessageField::some(memory),
        io: MessageField::some(v2_io(stats)),
        memory_events: MessageField::some(memory_events),
        ..Default::default()
    }
}

fn v2_io(stats: &Stats) -> v2::IOStat {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let all = stats
        .block_io
        .service_bytes
        .iter()
        .map(|e| (e, true))
        .chain(stats.block_io.serviced.iter().map(|e| (e, false)));
    for (entry, is_bytes) in all {
        let known = devices.iter().position(|d| (d.major, d.minor) == (entry.major, entry.minor));
        let at = known.unwrap_or_else(|| {
            devices.push(v2::IOEntry { major: entry.major, minor: entry.minor, ..Default::default() });
            devices.len() - 1
        });
        let Some(device) = devices.get_mut(at) else { continue };
        match (entry.op.as_str(), is_bytes) {
            ("read", true) => device.rbytes = entry.value,
            ("write", true) => device.wbytes = entry.value,
            ("read", false) => device.rios = entry.value,
            ("write", false) => device.wios = entry.value,
            _ => {}
        }
    }
    v2::IOStat { usage: devices, ..Default::default() }
}
