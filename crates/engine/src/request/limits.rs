//! Limits: ranges and contradictions, judged against this host. Also used by `update`.

use std::path::Path;

use crate::config::Resources;
use crate::error::{EngineError, Result};
use crate::host::{HostFacts, list_items};

/// Below this the kernel could not even start a process in the group.
const MEMORY_MIN: i64 = 6 << 20;

pub(crate) fn check(resources: &Resources, facts: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    check_memory(resources)?;
    check_cpu(resources, facts)?;
    check_list("cpuset-cpus", "CPU", &resources.cpuset_cpus, &facts.cpu_list)?;
    check_list("cpuset-mems", "memory node", &resources.cpuset_mems, &facts.memory_node_list)?;
    check_block_io(resources)?;
    if resources.pids_limit.is_some_and(|limit| limit < -1) {
        return Err(EngineError::invalid("pids limit must be -1 (unlimited), 0 or more"));
    }
    let has_block_io_rate = ![
        &resources.device_read_bps,
        &resources.device_write_bps,
        &resources.device_read_iops,
        &resources.device_write_iops,
    ]
    .iter()
    .all(|list| list.is_empty());
    if has_block_io_rate && facts.cgroup_version == 1 {
        warnings.push(
            "this host has cgroup v1: I/O rate limits hold for direct I/O only, buffered writes are not throttled"
                .to_owned(),
        );
    }
    Ok(())
}

fn check_memory(r: &Resources) -> Result<()> {
    for (name, value) in [("memory", r.memory), ("memory-reservation", r.memory_reservation)] {
        if value.is_some_and(|v| v < 0 && v != -1) {
            return Err(EngineError::invalid(format!("{name} limit must not be negative")));
        }
        if value.is_some_and(|v| v > 0 && v < MEMORY_MIN) {
            return Err(EngineError::invalid(format!("Minimum {} limit allowed is 6MB", name.replace('-', " ")))
                .with_hint(format!("give --{name} 6m or more")));
        }
    }
    let memory = r.memory.filter(|m| *m > 0);
    if let (Some(memory), Some(reservation)) = (memory, r.memory_reservation)
        && memory < reservation
    {
        return Err(EngineError::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    match (memory, r.memory_swap) {
        (_, Some(swap)) if swap < -1 => Err(EngineError::invalid("memory-swap must be -1 (unlimited), 0 or more")),
        (Some(memory), Some(swap)) if swap > 0 && swap < memory => {
            Err(EngineError::invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
                .with_hint("memory-swap is memory plus swap together"))
        }
        (None, Some(swap)) if swap > 0 => {
            Err(EngineError::invalid("You should always set the Memory limit when using Memoryswap limit, see usage"))
        }
        _ => match r.memory_swappiness {
            Some(value) if value != -1 && !(0..=100).contains(&value) => {
                Err(EngineError::invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")))
            }
            _ => Ok(()),
        },
    }
}

fn check_cpu(r: &Resources, facts: &HostFacts) -> Result<()> {
    let cpus = i64::try_from(facts.cpus).unwrap_or(1);
    if let Some(nano) = r.nano_cpus.filter(|n| *n != 0) {
        if r.cpu_period_us.is_some_and(|p| p > 0) || r.cpu_quota_us.is_some_and(|q| q > 0) {
            return Err(EngineError::invalid(
                "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
            )
            .with_hint("use --cpus alone"));
        }
        if nano < 10_000_000 || nano > cpus.saturating_mul(1_000_000_000) {
            return Err(EngineError::invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
    }
    if r.cpu_period_us.is_some_and(|p| p != 0 && !(1_000..=1_000_000).contains(&p)) {
        return Err(EngineError::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if r.cpu_quota_us.is_some_and(|q| q > 0 && q < 1_000) {
        return Err(EngineError::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if r.cpu_shares.is_some_and(|s| s < 0) {
        return Err(EngineError::invalid("cpu shares must not be negative"));
    }
    if let (Some(period), Some(runtime)) = (r.cpu_rt_period_us, r.cpu_rt_runtime_us)
        && runtime > period
    {
        return Err(EngineError::invalid("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    Ok(())
}

fn check_list(flag: &str, what: &str, asked: &str, available: &str) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let Some(items) = list_items(asked) else {
        return Err(EngineError::invalid(format!("Invalid value {asked} for {flag}: expected a list such as 0-2,4")));
    };
    let there = list_items(available).unwrap_or_default();
    match items.iter().find(|item| !there.contains(item)) {
        None => Ok(()),
        Some(missing) => Err(EngineError::invalid(format!(
            "Requested {what}s are not available - requested {asked}, available: {available} ({what} {missing} is not there)"
        ))),
    }
}

fn check_block_io(r: &Resources) -> Result<()> {
    let is_weight = |weight: u64| weight == 0 || (10..=1000).contains(&weight);
    if r.blkio_weight.is_some_and(|w| !is_weight(w.into())) {
        return Err(EngineError::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if let Some((device, weight)) = r.blkio_weight_device.iter().find(|(_, weight)| !is_weight(*weight)) {
        return Err(EngineError::invalid(format!(
            "blkio weight {weight} of {} is not from 10 to 1000",
            device.display()
        )));
    }
    let rates = [&r.device_read_bps, &r.device_write_bps, &r.device_read_iops, &r.device_write_iops];
    let devices = rates.iter().flat_map(|list| list.iter()).chain(&r.blkio_weight_device).map(|(device, _)| device);
    for device in devices {
        check_device_path(device)?;
    }
    Ok(())
}

fn check_device_path(device: &Path) -> Result<()> {
    if device.starts_with("/dev/") && !device.components().any(|c| c == std::path::Component::ParentDir) {
        return Ok(());
    }
    Err(EngineError::invalid(format!("bad device {}: expected a path below /dev", device.display())))
}
