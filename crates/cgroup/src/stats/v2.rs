//! Reading v2 files. A file that is missing belongs to a controller that is not enabled, and leaves its part at zero.

use std::collections::BTreeMap;

use super::{
    BlockIoEntry, BlockIoStats, CpuStats, HugetlbStats, MemoryEvents, MemoryStats, flat, optional_limit,
    optional_number, page_sizes, pressure,
};
use crate::error::CgroupError;
use crate::file::Directory;
use crate::oom::value_of;

const NANOSECONDS: u64 = 1000;

pub(super) fn cpu(directory: &Directory, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    let text = directory.read_optional("cpu.stat")?.unwrap_or_default();
    let time = |key| value_of(&text, key).unwrap_or(0).saturating_mul(NANOSECONDS);
    cpu.total_ns = time("usage_usec");
    cpu.user_ns = time("user_usec");
    cpu.system_ns = time("system_usec");
    cpu.throttled_ns = time("throttled_usec");
    cpu.periods = value_of(&text, "nr_periods").unwrap_or(0);
    cpu.throttled_periods = value_of(&text, "nr_throttled").unwrap_or(0);
    cpu.bursts = value_of(&text, "nr_bursts").unwrap_or(0);
    cpu.burst_ns = time("burst_usec");
    cpu.pressure = pressure::read(directory, "cpu.pressure");
    Ok(())
}

pub(super) fn memory(directory: &Directory) -> Result<MemoryStats, CgroupError> {
    let Some(usage) = optional_number(directory, "memory.current")? else {
        return Ok(MemoryStats::default());
    };
    let text = directory.read_optional("memory.events")?.unwrap_or_default();
    let count = |key| value_of(&text, key).unwrap_or(0);
    let events = MemoryEvents {
        low: count("low"),
        high: count("high"),
        max: count("max"),
        oom: count("oom"),
        oom_kill: count("oom_kill"),
        oom_group_kill: count("oom_group_kill"),
    };
    Ok(MemoryStats {
        usage,
        max_usage: optional_number(directory, "memory.peak")?.unwrap_or(0),
        limit: optional_limit(directory, "memory.max")?,
        swap_usage: optional_number(directory, "memory.swap.current")?.unwrap_or(0),
        swap_limit: optional_limit(directory, "memory.swap.max")?,
        swap_max_usage: optional_number(directory, "memory.swap.peak")?.unwrap_or(0),
        failcnt: events.max,
        swap_failcnt: 0,
        oom_kills: 0,
        oom_kill_disabled: false,
        under_oom: false,
        events,
        pressure: pressure::read(directory, "memory.pressure"),
        stat: flat(&directory.read_optional("memory.stat")?.unwrap_or_default()),
    })
}

pub(super) fn block_io(directory: &Directory) -> Result<BlockIoStats, CgroupError> {
    let Some(text) = directory.read_optional("io.stat")? else {
        return Ok(BlockIoStats::default());
    };
    let stats = parse_block_io(&text).ok_or_else(|| directory.parse_error("io.stat", &text))?;
    Ok(BlockIoStats { pressure: pressure::read(directory, "io.pressure"), ..stats })
}

/// Lines `major:minor rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, with more keys as kernels grow.
pub(super) fn parse_block_io(text: &str) -> Option<BlockIoStats> {
    let mut stats = BlockIoStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|node| node.split_once(':')) else {
            continue;
        };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.service_bytes, "read"),
                "wbytes" => (&mut stats.service_bytes, "write"),
                "dbytes" => (&mut stats.service_bytes, "discard"),
                "rios" => (&mut stats.serviced, "read"),
                "wios" => (&mut stats.serviced, "write"),
                "dios" => (&mut stats.serviced, "discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? });
        }
    }
    Some(stats)
}

pub(super) fn hugetlb(directory: &Directory) -> Result<BTreeMap<String, HugetlbStats>, CgroupError> {
    let mut all = BTreeMap::new();
    for size in page_sizes(directory, ".current")? {
        let usage = directory.read_number(&format!("hugetlb.{size}.current"))?;
        let events = directory.read_optional(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
        let failcnt = value_of(&events, "max").unwrap_or(0);
        let limit = optional_limit(directory, &format!("hugetlb.{size}.max"))?;
        all.insert(size, HugetlbStats { usage, max_usage: 0, limit, failcnt });
    }
    Ok(all)
}
