//! blkio on v1, io on v2: weights and throttles.

use super::{Draft, Interface, Missing, Setting, Value, bad_value, not_on_v2};
use crate::controller::Controller;
use crate::error::PlanError;
use crate::resources::{BlockIo, ThrottleDevice};

const IO: Controller = Controller::BlockIo;
const WEIGHT: &str = "this kernel has neither the BFQ scheduler nor io.cost for weights; leave the block I/O weight unset, or throttle instead";
const LEAF: &str = "leaf weights went with the CFQ scheduler in Linux 5.0; leave leaf_weight unset";
const THROTTLE: &str = "the kernel was built without CONFIG_BLK_DEV_THROTTLING; leave the device rates unset";

pub(super) fn plan(draft: &mut Draft<'_>, block_io: &BlockIo) -> Result<(), PlanError> {
    let weight = block_io.weight.filter(|weight| *weight != 0);
    let leaf = block_io.leaf_weight.filter(|weight| *weight != 0);
    if let Some(weight) = weight {
        weight_setting(draft, "block_io.weight", None, weight)?;
    }
    if let Some(leaf) = leaf {
        leaf_setting(draft, None, leaf)?;
    }
    for device in &block_io.weight_devices {
        let node = Some((device.major, device.minor));
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            weight_setting(draft, "block_io.weight_device", node, weight)?;
        }
        if let Some(leaf) = device.leaf_weight.filter(|weight| *weight != 0) {
            leaf_setting(draft, node, leaf)?;
        }
    }
    let throttles: [(&str, &str, &str, &[ThrottleDevice]); 4] = [
        ("block_io.read_bps", "blkio.throttle.read_bps_device", "rbps", &block_io.read_bps),
        ("block_io.write_bps", "blkio.throttle.write_bps_device", "wbps", &block_io.write_bps),
        ("block_io.read_iops", "blkio.throttle.read_iops_device", "riops", &block_io.read_iops),
        ("block_io.write_iops", "blkio.throttle.write_iops_device", "wiops", &block_io.write_iops),
    ];
    for (limit, v1_file, v2_key, devices) in throttles {
        for device in devices {
            throttle(draft, limit, v1_file, v2_key, *device)?;
        }
    }
    Ok(())
}

/// BFQ takes the number as it is; `io.weight` (io.cost) goes from 1 to 10000.
fn weight_setting(
    draft: &mut Draft<'_>,
    limit: &'static str,
    node: Option<(u32, u32)>,
    weight: u16,
) -> Result<(), PlanError> {
    let weight = in_range(limit, weight)?;
    let value = |number: u32| match node {
        Some((major, minor)) => format!("{major}:{minor} {number}"),
        None => number.to_string(),
    };
    let (first, second, converted) = match (draft.interface(limit, IO)?, node) {
        (Interface::V1, None) => ("blkio.bfq.weight", "blkio.weight", weight),
        (Interface::V1, Some(_)) => ("blkio.bfq.weight_device", "blkio.weight_device", weight),
        (Interface::V2, _) => ("io.bfq.weight", "io.weight", unified_weight(weight)),
    };
    let setting = |file: &'static str, number: u32, missing| Setting {
        limit,
        controller: IO,
        file: file.into(),
        value: Value::Text(value(number)),
        missing,
    };
    let instead = Box::new(setting(second, converted, Missing::Fail(WEIGHT)));
    draft.settings.push(setting(first, weight, Missing::Instead(instead)));
    Ok(())
}

fn leaf_setting(draft: &mut Draft<'_>, node: Option<(u32, u32)>, weight: u16) -> Result<(), PlanError> {
    const LIMIT: &str = "block_io.leaf_weight";
    let weight = in_range(LIMIT, weight)?;
    if draft.interface(LIMIT, IO)? == Interface::V2 {
        return Err(not_on_v2(LIMIT, LEAF));
    }
    match node {
        None => draft.text(LIMIT, IO, "blkio.leaf_weight", weight, LEAF),
        Some((major, minor)) => {
            draft.text(LIMIT, IO, "blkio.leaf_weight_device", format!("{major}:{minor} {weight}"), LEAF);
        }
    }
    Ok(())
}

fn in_range(limit: &'static str, weight: u16) -> Result<u32, PlanError> {
    if (10..=1000).contains(&weight) {
        Ok(weight.into())
    } else {
        Err(bad_value(limit, weight, "it goes from 10 to 1000"))
    }
}

/// 10 to 1000 stretched over 1 to 10000.
pub(super) fn unified_weight(weight: u32) -> u32 {
    1 + (weight.saturating_sub(10)) * 9999 / 990
}

fn throttle(
    draft: &mut Draft<'_>,
    limit: &'static str,
    v1_file: &'static str,
    v2_key: &str,
    device: ThrottleDevice,
) -> Result<(), PlanError> {
    let ThrottleDevice { major, minor, rate } = device;
    match draft.interface(limit, IO)? {
        Interface::V1 => draft.text(limit, IO, v1_file, format!("{major}:{minor} {rate}"), THROTTLE),
        Interface::V2 => {
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            draft.text(limit, IO, "io.max", format!("{major}:{minor} {v2_key}={rate}"), THROTTLE);
        }
    }
    Ok(())
}
