//! Every limit, the file it has in each version of cgroups, and the property by which systemd owns that file.
//!
//! One table for all: the driver splits settings by it, `docs/cgroups.md` is printed from it, and a test holds it against the plan.

use super::property::Form;

/// A limit and its places.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// The field of [`crate::Resources`].
    pub limit: &'static str,
    pub v1: Option<Place>,
    pub v2: Option<Place>,
}

/// A file of a group; `<size>` stands for a page size.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub file: &'static str,
    /// Properties that systemd writes the file from. `None`: systemd does not know it, so it is written directly.
    pub property: Option<&'static str>,
    /// The first version of systemd that has the property; an older one leaves the file to us.
    pub since: u32,
    pub(super) form: Form,
}

/// A file systemd does not know.
const fn direct(file: &'static str) -> Option<Place> {
    Some(Place { file, property: None, since: 0, form: Form::Bytes })
}

const fn owned(file: &'static str, property: &'static str, form: Form) -> Option<Place> {
    since(0, file, property, form)
}

const fn since(since: u32, file: &'static str, property: &'static str, form: Form) -> Option<Place> {
    Some(Place { file, property: Some(property), since, form })
}

const fn knob(limit: &'static str, v1: Option<Place>, v2: Option<Place>) -> Knob {
    Knob { limit, v1, v2 }
}

const QUOTA: &str = "CPUQuotaPerSecUSec";
const PERIOD: &str = "CPUQuotaPeriodUSec";
const IO_MAX: &str = "IOReadBandwidthMax, IOWriteBandwidthMax, IOReadIOPSMax, IOWriteIOPSMax";
const DEVICES: &str = "DevicePolicy, DeviceAllow";

/// In the order of [`crate::Resources`].
pub const KNOBS: &[Knob] = &[
    knob("cpu.shares", owned("cpu.shares", "CPUShares", Form::Number), owned("cpu.weight", "CPUWeight", Form::Number)),
    knob(
        "cpu.quota",
        owned("cpu.cfs_quota_us", QUOTA, Form::Quota),
        owned("cpu.max", "CPUQuotaPerSecUSec, CPUQuotaPeriodUSec", Form::Bandwidth),
    ),
    knob(
        "cpu.period",
        since(242, "cpu.cfs_period_us", PERIOD, Form::Period),
        owned("cpu.max", "CPUQuotaPerSecUSec, CPUQuotaPeriodUSec", Form::Bandwidth),
    ),
    knob("cpu.burst", direct("cpu.cfs_burst_us"), direct("cpu.max.burst")),
    knob("cpu.realtime_period", direct("cpu.rt_period_us"), None),
    knob("cpu.realtime_runtime", direct("cpu.rt_runtime_us"), None),
    knob("cpu.idle", direct("cpu.idle"), since(252, "cpu.idle", "CPUWeight", Form::Idle)),
    knob("cpu.cpus", direct("cpuset.cpus"), since(244, "cpuset.cpus", "AllowedCPUs", Form::List)),
    knob("cpu.mems", direct("cpuset.mems"), since(244, "cpuset.mems", "AllowedMemoryNodes", Form::List)),
    knob(
        "memory.limit",
        owned("memory.limit_in_bytes", "MemoryLimit", Form::Bytes),
        owned("memory.max", "MemoryMax", Form::Bytes),
    ),
    knob("memory.swap", direct("memory.memsw.limit_in_bytes"), owned("memory.swap.max", "MemorySwapMax", Form::Bytes)),
    knob("memory.reservation", direct("memory.soft_limit_in_bytes"), owned("memory.low", "MemoryLow", Form::Bytes)),
    knob("memory.swappiness", direct("memory.swappiness"), None),
    knob("memory.disable_oom_killer", direct("memory.oom_control"), None),
    knob("pids.limit", owned("pids.max", "TasksMax", Form::Bytes), owned("pids.max", "TasksMax", Form::Bytes)),
    knob(
        "block_io.weight",
        owned("blkio.bfq.weight", "BlockIOWeight", Form::Weight),
        owned("io.bfq.weight", "IOWeight", Form::Weight),
    ),
    knob("block_io.leaf_weight", direct("blkio.leaf_weight"), None),
    knob(
        "block_io.weight_device",
        owned("blkio.bfq.weight_device", "BlockIODeviceWeight", Form::Weight),
        owned("io.bfq.weight", "IODeviceWeight", Form::Weight),
    ),
    knob(
        "block_io.read_bps",
        owned("blkio.throttle.read_bps_device", "BlockIOReadBandwidth", Form::Rate),
        owned("io.max", IO_MAX, Form::IoMax),
    ),
    knob(
        "block_io.write_bps",
        owned("blkio.throttle.write_bps_device", "BlockIOWriteBandwidth", Form::Rate),
        owned("io.max", IO_MAX, Form::IoMax),
    ),
    knob("block_io.read_iops", direct("blkio.throttle.read_iops_device"), owned("io.max", IO_MAX, Form::IoMax)),
    knob("block_io.write_iops", direct("blkio.throttle.write_iops_device"), owned("io.max", IO_MAX, Form::IoMax)),
    knob("devices", owned("devices.list", DEVICES, Form::Devices), owned("devices.list", DEVICES, Form::Devices)),
    knob("hugetlb", direct("hugetlb.<size>.limit_in_bytes"), direct("hugetlb.<size>.max")),
    knob("net_cls.classid", direct("net_cls.classid"), None),
    knob("net_prio", direct("net_prio.ifpriomap"), None),
    knob("rdma", direct("rdma.max"), direct("rdma.max")),
    knob("unified", None, owned("memory.high", "MemoryHigh", Form::Bytes)),
    knob("unified", None, owned("memory.min", "MemoryMin", Form::Bytes)),
    knob("unified", None, since(253, "memory.zswap.max", "MemoryZSwapMax", Form::Bytes)),
    knob("unified", None, owned("io.weight", "IOWeight, IODeviceWeight", Form::Weight)),
    knob("unified", None, owned("io.latency", "IODeviceLatencyTargetUSec", Form::Latency)),
    knob("unified", None, direct("misc.max")),
];

/// Where a file is in the table, if systemd owns it. Names are unambiguous but for a few that both versions have.
pub(super) fn owner(file: &str, is_v2: bool) -> Option<Place> {
    let places = KNOBS.iter().filter_map(|knob| if is_v2 { knob.v2 } else { knob.v1 });
    places.into_iter().find(|place| place.file == file && place.property.is_some())
}
