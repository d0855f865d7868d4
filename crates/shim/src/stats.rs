//! Measurements of the container's cgroup as the messages engines expect: `cgroups.v1.Metrics` on v1 and hybrid hosts, else v2's.

use berth_cgroup::{BlockIoEntry, Layout, Pressure, Stall, Stats, Version};
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
        hugetlb: stats.hugetlb.iter().map(v1_hugetlb).collect(),
        rdma: MessageField::some(v1_rdma(stats)),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: stats.memory.oom_kill_disabled.into(),
            under_oom: stats.memory.under_oom.into(),
            oom_kill: stats.memory.oom_kills,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn v1_hugetlb((size, stats): (&String, &berth_cgroup::HugetlbStats)) -> v1::HugetlbStat {
    v1::HugetlbStat {
        usage: stats.usage,
        max: stats.max_usage,
        failcnt: stats.failcnt,
        pagesize: size.clone(),
        ..Default::default()
    }
}

fn v1_rdma(stats: &Stats) -> v1::RdmaStat {
    let entry = |device: &String, hca_handles, hca_objects| v1::RdmaEntry {
        device: device.clone(),
        hca_handles,
        hca_objects,
        ..Default::default()
    };
    let limit = |value: Option<u32>| value.unwrap_or(u32::MAX);
    v1::RdmaStat {
        current: stats.rdma.iter().map(|(device, s)| entry(device, s.hca_handles, s.hca_objects)).collect(),
        limit: stats
            .rdma
            .iter()
            .map(|(device, s)| entry(device, limit(s.hca_handles_limit), limit(s.hca_objects_limit)))
            .collect(),
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
        max: memory.swap_max_usage,
        failcnt: memory.swap_failcnt,
        ..Default::default()
    };
    v1::MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_unevictable: of("total_unevictable"),
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
        nr_bursts: stats.cpu.bursts,
        burst_usec: stats.cpu.burst_ns / NANOS_PER_MICRO,
        psi: stats.cpu.pressure.as_ref().map(pressure).into(),
        ..Default::default()
    };
    let pids =
        v2::PidsStat { current: stats.pids.current, limit: stats.pids.limit.unwrap_or_default(), ..Default::default() };
    let events = stats.memory.events;
    let memory_events = v2::MemoryEvents {
        low: events.low,
        high: events.high,
        max: events.max,
        oom: events.oom,
        oom_kill: events.oom_kill,
        oom_group_kill: events.oom_group_kill,
        ..Default::default()
    };
    v2::Metrics {
        cpu: MessageField::some(cpu),
        pids: MessageField::some(pids),
        memory: MessageField::some(v2_memory(stats)),
        io: MessageField::some(v2_io(stats)),
        hugetlb: stats.hugetlb.iter().map(v2_hugetlb).collect(),
        rdma: MessageField::some(v2_rdma(stats)),
        memory_events: MessageField::some(memory_events),
        ..Default::default()
    }
}

fn v2_hugetlb((size, stats): (&String, &berth_cgroup::HugetlbStats)) -> v2::HugeTlbStat {
    v2::HugeTlbStat {
        current: stats.usage,
        max: stats.limit.unwrap_or(UNLIMITED),
        pagesize: size.clone(),
        failcnt: stats.failcnt,
        ..Default::default()
    }
}

fn v2_rdma(stats: &Stats) -> v2::RdmaStat {
    let entry = |device: &String, hca_handles, hca_objects| v2::RdmaEntry {
        device: device.clone(),
        hca_handles,
        hca_objects,
        ..Default::default()
    };
    let limit = |value: Option<u32>| value.unwrap_or(u32::MAX);
    v2::RdmaStat {
        current: stats.rdma.iter().map(|(device, s)| entry(device, s.hca_handles, s.hca_objects)).collect(),
        limit: stats
            .rdma
            .iter()
            .map(|(device, s)| entry(device, limit(s.hca_handles_limit), limit(s.hca_objects_limit)))
            .collect(),
        ..Default::default()
    }
}

fn pressure(pressure: &Pressure) -> v2::PSIStats {
    let data = |stall: &Stall| {
        let share = |hundredths: u32| f64::from(hundredths) / 100.0;
        v2::PSIData {
            avg10: share(stall.avg10),
            avg60: share(stall.avg60),
            avg300: share(stall.avg300),
            total: stall.total_us,
            ..Default::default()
        }
    };
    v2::PSIStats {
        some: MessageField::some(data(&pressure.some)),
        full: pressure.full.as_ref().map(data).into(),
        ..Default::default()
    }
}

fn v2_memory(stats: &Stats) -> v2::MemoryStat {
    let of = |name: &str| stats.memory.stat.get(name).copied().unwrap_or_default();
    // Kernels since 5.9 count reclaimed anonymous and file pages apart.
    let refaults = |name: &str| of(name) + of(&format!("{name}_anon")) + of(&format!("{name}_file"));
    v2::MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        workingset_refault: refaults("workingset_refault"),
        workingset_activate: refaults("workingset_activate"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: stats.memory.usage,
        usage_limit: stats.memory.limit.unwrap_or(UNLIMITED),
        swap_usage: stats.memory.swap_usage,
        swap_limit: stats.memory.swap_limit.unwrap_or(UNLIMITED),
        max_usage: stats.memory.max_usage,
        swap_max_usage: stats.memory.swap_max_usage,
        psi: stats.memory.pressure.as_ref().map(pressure).into(),
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
    let psi = stats.block_io.pressure.as_ref().map(pressure).into();
    v2::IOStat { usage: devices, psi, ..Default::default() }
}
