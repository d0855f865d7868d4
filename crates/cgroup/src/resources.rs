//! What somebody asked for, in the OCI runtime specification's terms, as plain data.
//!
//! `None` and empty mean "not asked"; nothing is written for it. `-1` means "unlimited" where the specification says so.
//!
//! # Spec
//! runtime-spec config-linux, "Control groups".

use std::collections::BTreeMap;

use crate::device::DeviceRule;

/// The resources of one container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    pub cpu: Cpu,
    pub memory: Memory,
    /// Most processes and threads; `-1` and `0` are unlimited.
    pub pids_limit: Option<i64>,
    pub block_io: BlockIo,
    /// Device rules, in order; the last word on a device counts. Empty means "do not touch the devices controller".
    pub devices: Vec<DeviceRule>,
    pub hugetlb: Vec<HugetlbLimit>,
    pub net_cls_classid: Option<u32>,
    /// Interface name and priority.
    pub net_prio: Vec<(String, u32)>,
    /// RDMA limits by device name.
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// v2 files by name, written verbatim.
    pub unified: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// v1 `cpu.shares` (2 to 262144); converted to a weight on v2. `0` is "not asked", as in Docker.
    pub shares: Option<u64>,
    /// Microseconds per period; `-1` is unlimited.
    pub quota_us: Option<i64>,
    pub period_us: Option<u64>,
    pub burst_us: Option<u64>,
    pub idle: Option<i64>,
    pub realtime_runtime_us: Option<i64>,
    pub realtime_period_us: Option<u64>,
    /// CPU list, such as `0-1,3`; empty is "not asked".
    pub cpus: String,
    /// Memory node list; empty is "not asked".
    pub mems: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Bytes; `-1` is unlimited.
    pub limit: Option<i64>,
    /// Soft limit in bytes; `-1` is unlimited.
    pub reservation: Option<i64>,
    /// Memory plus swap in bytes, as the specification defines it; `-1` is unlimited.
    pub swap: Option<i64>,
    pub swappiness: Option<u64>,
    pub disable_oom_killer: bool,
    /// Refuse a limit below what is in use instead of letting the kernel kill.
    pub check_before_update: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIo {
    /// 10 to 1000; `0` is "not asked".
    pub weight: Option<u16>,
    /// 10 to 1000; only the v1 CFQ scheduler of kernels before 5.0 had it.
    pub leaf_weight: Option<u16>,
    pub weight_devices: Vec<WeightDevice>,
    pub read_bps: Vec<ThrottleDevice>,
    pub write_bps: Vec<ThrottleDevice>,
    pub read_iops: Vec<ThrottleDevice>,
    pub write_iops: Vec<ThrottleDevice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

/// A rate for one device, in bytes or operations per second; `0` removes the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleDevice {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugetlbLimit {
    /// As the kernel writes it in file names: `2MB`, `1GB`.
    pub page_size: String,
    pub limit_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaLimit {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}
