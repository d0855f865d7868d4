//! Reading v1 files.

use std::collections::BTreeMap;

use super::{
    BlockIoEntry, BlockIoStats, CpuStats, HugetlbStats, MemoryEvents, MemoryStats, flat, optional_number, page_sizes,
};
use crate::error::CgroupError;
use crate::file::Directory;
use crate::oom::value_of;

/// v1 writes "unlimited" as the largest number of whole pages; no machine has this much.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn throttling(directory: &Directory, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    let text = directory.read("cpu.stat")?;
    cpu.periods = value_of(&text, "nr_periods").unwrap_or(0);
    cpu.throttled_periods = value_of(&text, "nr_throttled").unwrap_or(0);
    cpu.throttled_ns = value_of(&text, "throttled_time").unwrap_or(0);
    cpu.bursts = value_of(&text, "nr_bursts").unwrap_or(0);
    cpu.burst_ns = value_of(&text, "burst_time").unwrap_or(0);
    Ok(())
}

pub(super) fn cpu_times(directory: &Directory, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    cpu.total_ns = directory.read_number("cpuacct.usage")?;
    cpu.user_ns = directory.read_number("cpuacct.usage_user")?;
    cpu.system_ns = directory.read_number("cpuacct.usage_sys")?;
    let text = directory.read("cpuacct.usage_percpu")?;
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    cpu.percpu_ns = numbers.map_err(|_| directory.parse_error("cpuacct.usage_percpu", &text))?;
    Ok(())
}

pub(super) fn memory(directory: &Directory) -> Result<MemoryStats, CgroupError> {
    let limit = |number: u64| (number < UNLIMITED).then_some(number);
    let control = directory.read_optional("memory.oom_control")?.unwrap_or_default();
    Ok(MemoryStats {
        usage: directory.read_number("memory.usage_in_bytes")?,
        max_usage: directory.read_number("memory.max_usage_in_bytes")?,
        limit: limit(directory.read_number("memory.limit_in_bytes")?),
        swap_usage: optional_number(directory, "memory.memsw.usage_in_bytes")?.unwrap_or(0),
        swap_limit: optional_number(directory, "memory.memsw.limit_in_bytes")?.and_then(limit),
        swap_max_usage: optional_number(directory, "memory.memsw.max_usage_in_bytes")?.unwrap_or(0),
        failcnt: directory.read_number("memory.failcnt")?,
        swap_failcnt: optional_number(directory, "memory.memsw.failcnt")?.unwrap_or(0),
        oom_kills: 0,
        oom_kill_disabled: value_of(&control, "oom_kill_disable") == Some(1),
        under_oom: value_of(&control, "under_oom") == Some(1),
        events: MemoryEvents::default(),
        pressure: None,
        stat: flat(&directory.read("memory.stat")?),
    })
}

/// The throttling layer counts on every kernel; BFQ's own counters are empty unless it schedules the disk.
pub(super) fn block_io(directory: &Directory) -> Result<BlockIoStats, CgroupError> {
    let entries = |file: &str| -> Result<Vec<BlockIoEntry>, CgroupError> {
        match directory.read_optional(file)? {
            Some(text) => parse_block_io(&text).ok_or_else(|| directory.parse_error(file, &text)),
            None => Ok(Vec::new()),
        }
    };
    Ok(BlockIoStats {
        service_bytes: entries("blkio.throttle.io_service_bytes_recursive")?,
        serviced: entries("blkio.throttle.io_serviced_recursive")?,
        pressure: None,
    })
}

/// Lines `major:minor Op number`, and a last line `Total number`.
pub(super) fn parse_block_io(text: &str) -> Option<Vec<BlockIoEntry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [node, op, value] => {
                let (major, minor) = node.split_once(':')?;
                let (major, minor, value) = (major.parse().ok()?, minor.parse().ok()?, value.parse().ok()?);
                entries.push(BlockIoEntry { major, minor, op: (*op).to_owned(), value });
            }
            ["Total", _] | [] => {}
            _ => return None,
        }
    }
    Some(entries)
}

pub(super) fn hugetlb(directory: &Directory) -> Result<BTreeMap<String, HugetlbStats>, CgroupError> {
    let mut all = BTreeMap::new();
    for size in page_sizes(directory, ".usage_in_bytes")? {
        let number = |suffix: &str| directory.read_number(&format!("hugetlb.{size}.{suffix}"));
        let (usage, max_usage) = (number("usage_in_bytes")?, number("max_usage_in_bytes")?);
        let (limit, failcnt) = (number("limit_in_bytes")?, number("failcnt")?);
        all.insert(size, HugetlbStats { usage, max_usage, limit: (limit < UNLIMITED).then_some(limit), failcnt });
    }
    Ok(all)
}
