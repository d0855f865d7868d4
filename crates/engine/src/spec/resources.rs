//! Limits in the spec's terms, for the start and for a live update.

use std::collections::HashMap;
use std::path::PathBuf;

use berth_oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::{Reason, SpecInput, devices};
use crate::config::Resources;

/// Numbers of the block devices that limits name.
pub(crate) type BlockDevices = HashMap<PathBuf, (u32, u32)>;

const PERIOD_US: u64 = 100_000;

pub(super) fn for_create(input: &SpecInput<'_>, reasons: &mut Vec<Reason>) -> LinuxResources {
    let mut resources = for_update(&input.record.host.resources, input.block_devices);
    resources.set_devices(Some(devices::rules(input)));
    if input.record.host.oom_kill_disable == Some(true) && input.facts.cgroup_version == 1 {
        let mut memory = resources.memory().unwrap_or_default();
        memory.set_disable_oom_killer(Some(true));
        resources.set_memory(Some(memory));
    }
    explain(&input.record.host.resources, reasons);
    resources
}

fn explain(asked: &Resources, reasons: &mut Vec<Reason>) {
    let mut add = |is_asked: bool, object: &str, flag: &str| {
        if is_asked {
            reasons.push(Reason { object: object.to_owned(), reason: format!("flag {flag}") });
        }
    };
    add(asked.memory.is_some_and(|m| m > 0), "memory", "--memory");
    add(asked.nano_cpus.is_some_and(|n| n > 0), "cpu", "--cpus");
    add(asked.cpu_shares.is_some_and(|s| s > 0), "cpu", "--cpu-shares");
    add(!asked.cpuset_cpus.is_empty(), "cpuset", "--cpuset-cpus");
    add(asked.pids_limit.is_some_and(|p| p > 0), "pids", "--pids-limit");
}

/// Only what is asked; everything else is left as it is.
pub(crate) fn for_update(asked: &Resources, block_devices: &BlockDevices) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_memory(memory(asked));
    resources.set_cpu(cpu(asked));
    resources.set_pids(asked.pids_limit.filter(|limit| *limit != 0).map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    }));
    resources.set_block_io(block_io(asked, block_devices));
    resources.set_devices(None);
    resources
}

fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0)
}

fn memory(asked: &Resources) -> Option<LinuxMemory> {
    let limit = asked.memory.filter(|m| *m != 0);
    // As Docker: a memory limit alone allows the same amount of swap again.
    let swap = match (limit, asked.memory_swap.filter(|s| *s != 0)) {
        (_, Some(swap)) => Some(swap),
        (Some(limit), None) if limit > 0 => Some(limit.saturating_mul(2)),
        _ => None,
    };
    let reservation = asked.memory_reservation.filter(|m| *m != 0);
    let swappiness = asked.memory_swappiness.and_then(|s| u64::try_from(s).ok());
    if limit.is_none() && swap.is_none() && reservation.is_none() && swappiness.is_none() {
        return None;
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit);
    memory.set_swap(swap);
    memory.set_reservation(reservation);
    memory.set_swappiness(swappiness);
    Some(memory)
}

fn cpu(asked: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(asked.cpu_shares));
    if let Some(nano) = asked.nano_cpus.filter(|n| *n > 0) {
        cpu.set_period(Some(PERIOD_US));
        cpu.set_quota(Some(nano.saturating_mul(100_000) / 1_000_000_000));
    } else {
        cpu.set_period(positive(asked.cpu_period_us));
        cpu.set_quota(asked.cpu_quota_us.filter(|q| *q != 0));
    }
    cpu.set_realtime_period(positive(asked.cpu_rt_period_us));
    cpu.set_realtime_runtime(asked.cpu_rt_runtime_us.filter(|r| *r != 0));
    cpu.set_cpus((!asked.cpuset_cpus.is_empty()).then(|| asked.cpuset_cpus.clone()));
    cpu.set_mems((!asked.cpuset_mems.is_empty()).then(|| asked.cpuset_mems.clone()));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_io(asked: &Resources, block_devices: &BlockDevices) -> Option<LinuxBlockIo> {
    let throttle = |list: &[(PathBuf, u64)]| {
        let devices: Vec<LinuxThrottleDevice> = list
            .iter()
            .filter_map(|(path, rate)| {
                let (major, minor) = *block_devices.get(path)?;
                LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(*rate).build().ok()
            })
            .collect();
        (!devices.is_empty()).then_some(devices)
    };
    let weights: Vec<LinuxWeightDevice> = asked
        .blkio_weight_device
        .iter()
        .filter_map(|(path, weight)| {
            let (major, minor) = *block_devices.get(path)?;
            let weight = u16::try_from(*weight).ok()?;
            LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build().ok()
        })
        .collect();
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(asked.blkio_weight.filter(|w| *w != 0));
    block_io.set_weight_device((!weights.is_empty()).then_some(weights));
    block_io.set_throttle_read_bps_device(throttle(&asked.device_read_bps));
    block_io.set_throttle_write_bps_device(throttle(&asked.device_write_bps));
    block_io.set_throttle_read_iops_device(throttle(&asked.device_read_iops));
    block_io.set_throttle_write_iops_device(throttle(&asked.device_write_iops));
    (block_io != LinuxBlockIo::default()).then_some(block_io)
}
