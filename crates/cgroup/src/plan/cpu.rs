//! cpu and cpuset.

use super::{Draft, Interface, bad_value, not_on_v2};
use crate::controller::Controller;
use crate::error::PlanError;
use crate::resources::Cpu;

const CPU: Controller = Controller::Cpu;
const CPUSET: Controller = Controller::Cpuset;
const BANDWIDTH: &str = "the kernel was built without CONFIG_CFS_BANDWIDTH; leave quota and period unset";
const REALTIME: &str = "the kernel was built without CONFIG_RT_GROUP_SCHED; leave the realtime limits unset";
const BURST: &str = "CPU bursts need Linux 5.14; leave the burst unset";
const IDLE: &str = "idle groups need Linux 5.15; leave idle unset";
const SHARES: &str = "the kernel was built without CONFIG_FAIR_GROUP_SCHED; leave the shares unset";
const SETS: &str = "the kernel was built without CONFIG_CPUSETS; leave cpus and mems unset";
/// The kernel's default period, which v2's `cpu.max` keeps when only a quota is written.
const QUOTA_MIN_US: i64 = 1000;

pub(super) fn plan(draft: &mut Draft<'_>, cpu: &Cpu) -> Result<(), PlanError> {
    if let Some(quota @ 1..QUOTA_MIN_US) = cpu.quota_us {
        return Err(bad_value("cpu.quota", quota, "the kernel takes no quota below 1000 microseconds"));
    }
    shares(draft, cpu)?;
    bandwidth(draft, cpu)?;
    realtime(draft, cpu)?;
    if let Some(idle) = cpu.idle {
        draft.interface("cpu.idle", CPU)?;
        draft.text("cpu.idle", CPU, "cpu.idle", idle, IDLE);
    }
    for (limit, file, list) in [("cpu.cpus", "cpuset.cpus", &cpu.cpus), ("cpu.mems", "cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            draft.interface(limit, CPUSET)?;
            if !is_list(list) {
                return Err(bad_value(limit, list, "write a list such as 0-2,4"));
            }
            draft.text(limit, CPUSET, file, list, SETS);
        }
    }
    Ok(())
}

fn shares(draft: &mut Draft<'_>, cpu: &Cpu) -> Result<(), PlanError> {
    let Some(shares) = cpu.shares.filter(|shares| *shares != 0) else {
        return Ok(());
    };
    match draft.interface("cpu.shares", CPU)? {
        Interface::V1 => draft.text("cpu.shares", CPU, "cpu.shares", shares, SHARES),
        Interface::V2 => draft.text("cpu.shares", CPU, "cpu.weight", weight(shares), SHARES),
    }
    Ok(())
}

/// v1 shares (2 to 262144, default 1024) as a v2 weight (1 to 10000, default 100).
///
/// Linear conversion turned the default 1024 into 39; this curve, which runc and crun use since 2025, goes through
/// (2, 1), (1024, 100) and (262144, 10000): `10^((l² + 125 l - 126) / 612)` with `l` the binary logarithm, rounded up.
pub(super) fn weight(shares: u64) -> u64 {
    const SHARES_MIN: u64 = 2;
    const SHARES_MAX: u64 = 262_144;
    const WEIGHT_MAX: u64 = 10_000;
    if shares <= SHARES_MIN {
        return 1;
    }
    if shares >= SHARES_MAX {
        return WEIGHT_MAX;
    }
    #[expect(clippy::cast_precision_loss, reason = "shares are below 2^18")]
    let logarithm = (shares as f64).log2();
    let exponent = (logarithm * logarithm + 125.0 * logarithm - 126.0) / 612.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000 for these shares")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, WEIGHT_MAX)
}

/// The order quota, burst fits a fresh group; the applier turns it round where an old value stands against it.
fn bandwidth(draft: &mut Draft<'_>, cpu: &Cpu) -> Result<(), PlanError> {
    let period = cpu.period_us.filter(|period| *period != 0);
    let quota = cpu.quota_us.filter(|quota| *quota != 0);
    if period.is_some() || quota.is_some() {
        let limit = if quota.is_some() { "cpu.quota" } else { "cpu.period" };
        match draft.interface(limit, CPU)? {
            Interface::V1 => {
                if let Some(period) = period {
                    draft.text("cpu.period", CPU, "cpu.cfs_period_us", period, BANDWIDTH);
                }
                if let Some(quota) = quota {
                    draft.text("cpu.quota", CPU, "cpu.cfs_quota_us", quota.max(-1), BANDWIDTH);
                }
            }
            Interface::V2 => {
                let quota = quota.map_or_else(|| "max".to_owned(), super::or_max);
                let value = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
                draft.text(limit, CPU, "cpu.max", value, BANDWIDTH);
            }
        }
    }
    if let Some(burst) = cpu.burst_us {
        let file = match draft.interface("cpu.burst", CPU)? {
            Interface::V1 => "cpu.cfs_burst_us",
            Interface::V2 => "cpu.max.burst",
        };
        draft.text("cpu.burst", CPU, file, burst, BURST);
    }
    Ok(())
}

fn realtime(draft: &mut Draft<'_>, cpu: &Cpu) -> Result<(), PlanError> {
    let period = cpu.realtime_period_us.filter(|period| *period != 0);
    let runtime = cpu.realtime_runtime_us.filter(|runtime| *runtime != 0);
    if period.is_none() && runtime.is_none() {
        return Ok(());
    }
    if draft.interface("cpu.realtime", CPU)? == Interface::V2 {
        return Err(not_on_v2("cpu.realtime", "leave the realtime limits unset, or boot with cgroup v1"));
    }
    if let Some(period) = period {
        draft.text("cpu.realtime_period", CPU, "cpu.rt_period_us", period, REALTIME);
    }
    if let Some(runtime) = runtime {
        draft.text("cpu.realtime_runtime", CPU, "cpu.rt_runtime_us", runtime, REALTIME);
    }
    Ok(())
}

/// The kernel's list format (cpuset(7)), without checking that the processors exist.
fn is_list(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-' | b':' | b'/'))
}
