//! What a group uses. The values are the kernel files' values; only times are brought to nanoseconds.

mod pressure;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeMap;

use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file::Directory;
use crate::group::{Cgroup, HomeDirectory};

pub use pressure::{Pressure, Stall};

/// Controllers the host does not have leave their part at zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub block_io: BlockIoStats,
    /// By page size, such as `2MB`.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// By device.
    pub rdma: BTreeMap<String, RdmaStats>,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Empty on v2, which does not count per processor.
    pub percpu_ns: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    /// How often more than the quota was used, on what was saved up before, and for how long.
    pub bursts: u64,
    pub burst_ns: u64,
    pub pressure: Option<Pressure>,
}

/// Bytes. A limit of `None` is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage: u64,
    /// Highest usage seen; 0 where the kernel does not keep it (v2 before 5.19).
    pub max_usage: u64,
    pub limit: Option<u64>,
    /// v1: memory plus swap; v2: swap alone, as the kernel counts.
    pub swap_usage: u64,
    pub swap_limit: Option<u64>,
    /// Highest `swap_usage` seen; 0 where the kernel does not keep it (v2 before 6.5).
    pub swap_max_usage: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// v1: how often the limit on memory plus swap was hit.
    pub swap_failcnt: u64,
    pub oom_kills: u64,
    /// v1: whether the OOM killer is off, and whether processes wait for memory for that reason now.
    pub oom_kill_disabled: bool,
    pub under_oom: bool,
    /// v2: `memory.events`.
    pub events: MemoryEvents,
    pub pressure: Option<Pressure>,
    /// `memory.stat` as it is.
    pub stat: BTreeMap<String, u64>,
}

/// How often each happened, in the group and below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    pub low: u64,
    pub high: u64,
    pub max: u64,
    pub oom: u64,
    pub oom_kill: u64,
    pub oom_group_kill: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    /// How often a fork was refused.
    pub refused: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoStats {
    pub service_bytes: Vec<BlockIoEntry>,
    pub serviced: Vec<BlockIoEntry>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    /// In Docker's words: `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total` on v1; `read`, `write`, `discard` on v2.
    pub op: String,
    pub value: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    pub usage: u64,
    /// 0 on v2, which does not keep it.
    pub max_usage: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    pub failcnt: u64,
}

/// Handles and objects of one RDMA device. A limit of `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaStats {
    pub hca_handles: u32,
    pub hca_objects: u32,
    pub hca_handles_limit: Option<u32>,
    pub hca_objects_limit: Option<u32>,
}

impl Cgroup {
    /// What the group uses now.
    ///
    /// # Errors
    /// `NotFound` when the group is gone; `Internal` when a file is not in the form we know.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        match self.home(Controller::Cpu) {
            Some(HomeDirectory::V1(cpu)) => v1::throttling(cpu, &mut stats.cpu)?,
            Some(HomeDirectory::V2(unified)) => v2::cpu(&unified.directory, &mut stats.cpu)?,
            None => {}
        }
        if let Some(HomeDirectory::V1(cpuacct)) = self.home(Controller::Cpuacct) {
            v1::cpu_times(cpuacct, &mut stats.cpu)?;
        }
        match self.home(Controller::Memory) {
            Some(HomeDirectory::V1(memory)) => stats.memory = v1::memory(memory)?,
            Some(HomeDirectory::V2(unified)) => stats.memory = v2::memory(&unified.directory)?,
            None => {}
        }
        if self.home(Controller::Memory).is_some() {
            stats.memory.oom_kills = self.oom_kills().or_else(|error| match error {
                CgroupError::Unsupported { .. } => Ok(0),
                other => Err(other),
            })?;
        }
        if let Some(home) = self.home(Controller::Pids) {
            stats.pids = pids(home.directory())?;
        }
        match self.home(Controller::BlockIo) {
            Some(HomeDirectory::V1(blkio)) => stats.block_io = v1::block_io(blkio)?,
            Some(HomeDirectory::V2(unified)) => stats.block_io = v2::block_io(&unified.directory)?,
            None => {}
        }
        match self.home(Controller::Hugetlb) {
            Some(HomeDirectory::V1(hugetlb)) => stats.hugetlb = v1::hugetlb(hugetlb)?,
            Some(HomeDirectory::V2(unified)) => stats.hugetlb = v2::hugetlb(&unified.directory)?,
            None => {}
        }
        if let Some(home) = self.home(Controller::Rdma) {
            stats.rdma = rdma(home.directory())?;
        }
        Ok(stats)
    }
}

/// The same files in both versions.
fn pids(directory: &Directory) -> Result<PidsStats, CgroupError> {
    let Some(current) = optional_number(directory, "pids.current")? else {
        return Ok(PidsStats::default());
    };
    let events = directory.read_optional("pids.events")?.unwrap_or_default();
    let refused = crate::oom::value_of(&events, "max").unwrap_or(0);
    Ok(PidsStats { current, limit: optional_limit(directory, "pids.max")?, refused })
}

/// The same files in both versions: `mlx4_0 hca_handle=2 hca_object=max`.
fn rdma(directory: &Directory) -> Result<BTreeMap<String, RdmaStats>, CgroupError> {
    let mut all: BTreeMap<String, RdmaStats> = BTreeMap::new();
    for (device, handles, objects) in rdma_lines(&directory.read_optional("rdma.current")?.unwrap_or_default()) {
        let stats = all.entry(device).or_default();
        (stats.hca_handles, stats.hca_objects) = (handles.unwrap_or(0), objects.unwrap_or(0));
    }
    for (device, handles, objects) in rdma_lines(&directory.read_optional("rdma.max")?.unwrap_or_default()) {
        let stats = all.entry(device).or_default();
        (stats.hca_handles_limit, stats.hca_objects_limit) = (handles, objects);
    }
    Ok(all)
}

/// `max` is `None`.
fn rdma_lines(text: &str) -> Vec<(String, Option<u32>, Option<u32>)> {
    let line = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok());
        Some((device.to_owned(), value("hca_handle="), value("hca_object=")))
    };
    text.lines().filter_map(line).collect()
}

fn optional_number(directory: &Directory, file: &str) -> Result<Option<u64>, CgroupError> {
    let Some(text) = directory.read_optional(file)? else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|_| directory.parse_error(file, &text))
}

/// A limit file of v2, or of pids: a number, or `max`.
fn optional_limit(directory: &Directory, file: &str) -> Result<Option<u64>, CgroupError> {
    match directory.read_optional(file)? {
        Some(text) if text.trim() == "max" => Ok(None),
        Some(text) => text.trim().parse().map(Some).map_err(|_| directory.parse_error(file, &text)),
        None => Ok(None),
    }
}

/// Lines `key number`.
fn flat(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// The page sizes of `hugetlb.<size>.<suffix>` files.
fn page_sizes(directory: &Directory, suffix: &str) -> Result<Vec<String>, CgroupError> {
    let fail = |source| CgroupError::Open { path: directory.path.clone(), source };
    let mut sizes = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory.fd).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(suffix));
        if let Some(size) = size.filter(|size| !size.contains('.')) {
            sizes.push(size.to_owned());
        }
    }
    Ok(sizes)
}
