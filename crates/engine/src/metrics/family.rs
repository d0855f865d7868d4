//! Every family there is: name, type, help. The dashboard and docs/observability.md are checked against this table.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

pub(super) const FAMILIES: &[Family] = &[
    counter("berth_container_cpu_usage_seconds_total", "CPU time used: cpuacct.usage, or usage_usec of cpu.stat."),
    counter("berth_container_cpu_user_seconds_total", "CPU time used in user space."),
    counter("berth_container_cpu_system_seconds_total", "CPU time used in the kernel."),
    counter("berth_container_cpu_periods_total", "Enforcement periods of the CPU quota that have passed."),
    counter("berth_container_cpu_throttled_periods_total", "Periods in which the CPU quota was used up."),
    counter("berth_container_cpu_throttled_seconds_total", "Time for which it was throttled by its CPU quota."),
    gauge(
        "berth_container_memory_usage_bytes",
        "Memory charged, page cache included: memory.usage_in_bytes, memory.current.",
    ),
    gauge(
        "berth_container_memory_working_set_bytes",
        "Usage without inactive page cache. THE NUMBER THAT KILLS: what cannot be given back when the limit is reached.",
    ),
    gauge("berth_container_memory_cache_bytes", "Page cache: cache, or file, of memory.stat."),
    gauge("berth_container_memory_anon_bytes", "Anonymous memory: rss, or anon, of memory.stat."),
    gauge(
        "berth_container_memory_kernel_bytes",
        "Memory of the kernel charged to it: memory.kmem.usage_in_bytes, or kernel of memory.stat.",
    ),
    gauge("berth_container_memory_swap_bytes", "Swap in use."),
    gauge("berth_container_memory_limit_bytes", "Limit of memory; absent without one."),
    gauge("berth_container_memory_peak_bytes", "Highest usage seen, where the kernel keeps it."),
    counter(
        "berth_container_memory_limit_hits_total",
        "How often the limit stood in the way: memory.failcnt, or max of memory.events.",
    ),
    counter("berth_container_oom_kills_total", "Processes the kernel killed for lack of memory."),
    gauge("berth_container_processes", "Processes and threads: pids.current."),
    gauge("berth_container_processes_limit", "Limit of processes; absent without one."),
    counter("berth_container_forks_refused_total", "Forks refused by the limit: max of pids.events."),
    counter("berth_container_io_read_bytes_total", "Bytes read from block devices."),
    counter("berth_container_io_write_bytes_total", "Bytes written to block devices."),
    counter("berth_container_io_reads_total", "Reads from block devices."),
    counter("berth_container_io_writes_total", "Writes to block devices."),
    gauge("berth_container_hugetlb_usage_bytes", "Huge pages in use, by their size."),
    counter("berth_container_hugetlb_failures_total", "Huge pages refused by the limit, by their size."),
    counter(
        "berth_container_pressure_seconds_total",
        "Time in which some or all tasks waited for a resource (PSI), where the kernel has it.",
    ),
    counter("berth_container_network_receive_bytes_total", "Bytes received, by interface."),
    counter("berth_container_network_receive_packets_total", "Packets received, by interface."),
    counter("berth_container_network_receive_errors_total", "Receive errors, by interface."),
    counter("berth_container_network_receive_dropped_total", "Received packets that were dropped, by interface."),
    counter("berth_container_network_transmit_bytes_total", "Bytes sent, by interface."),
    counter("berth_container_network_transmit_packets_total", "Packets sent, by interface."),
    counter("berth_container_network_transmit_errors_total", "Transmit errors, by interface."),
    counter("berth_container_network_transmit_dropped_total", "Packets to be sent that were dropped, by interface."),
    gauge("berth_container_start_time_seconds", "Wall-clock time of its start."),
    counter("berth_container_restarts_total", "Restarts by its restart policy."),
    gauge("berth_containers", "Containers by state."),
    Family {
        name: "berth_operation_seconds",
        kind: Kind::Histogram,
        help: "How long operations of the engine took, by operation and result.",
    },
    gauge("berth_jobs", "Asynchronous jobs alive in the daemon."),
    gauge("berth_heavy_jobs", "Image and archive jobs under way."),
    counter("berth_metadata_commits_total", "Transactions of the metadata database, by durability."),
    counter("berth_metadata_flushes_total", "Times the metadata database was brought up to date with its journal."),
    gauge("berth_metadata_file_bytes", "Size of the metadata database."),
    counter("berth_events_total", "Events recorded since the data root was made."),
    gauge("berth_event_subscribers", "Readers of the event stream."),
    counter("berth_gc_runs_total", "Collections of blobs and layers that nothing leads to."),
    counter("berth_gc_removed_total", "Blobs and layers that collections removed, by kind."),
    counter("berth_gc_bytes_total", "Bytes that collections freed."),
    counter("berth_trash_runs_total", "Runs of the background deletion of removed files."),
    gauge("berth_trash_entries", "Removed layers and directories that wait to be deleted."),
    counter("berth_tree_walks_total", "Directory trees that were walked to count their bytes, by kind."),
    gauge("berth_build_info", "Always 1; the version is a label."),
    counter("process_cpu_seconds_total", "CPU time of the daemon."),
    gauge("process_resident_memory_bytes", "Resident memory of the daemon."),
    gauge("process_virtual_memory_bytes", "Virtual memory of the daemon."),
    gauge("process_open_fds", "Open descriptors of the daemon."),
    gauge("process_max_fds", "Limit of the daemon's descriptors."),
    gauge("process_threads", "Threads of the daemon."),
    gauge("process_start_time_seconds", "Wall-clock time of the daemon's start."),
];
