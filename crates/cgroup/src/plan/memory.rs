//! memory: limit, swap, reservation, swappiness, OOM killer.

use super::{Draft, Interface, Missing, Setting, Value, bad_value, not_on_v2, or_max};
use crate::controller::Controller;
use crate::error::PlanError;
use crate::resources::Memory;

const MEMORY: Controller = Controller::Memory;
const BASIC: &str = "the kernel was built without CONFIG_MEMCG; leave the memory limits unset";
const SWAP_V1: &str = "swap accounting is off; boot with swapaccount=1, or leave memory.swap unset";
const SWAP_V2: &str = "the kernel was built without CONFIG_SWAP; leave memory.swap unset";

pub(super) fn plan(draft: &mut Draft<'_>, memory: &Memory) -> Result<(), PlanError> {
    let memory = checked(memory)?;
    let is_v2 = draft.interface("memory.limit", MEMORY).is_ok_and(|interface| interface == Interface::V2);
    if let (None | Some(..=0), Some(swap @ 1..), true) = (memory.limit, memory.swap, is_v2) {
        return Err(bad_value("memory.swap", swap, "it counts memory plus swap, so it needs memory.limit"));
    }
    let asked = memory.limit.or(memory.swap).or(memory.reservation).is_some() || memory.swappiness.is_some();
    if !asked && !memory.disable_oom_killer {
        return Ok(());
    }
    match draft.interface("memory.limit", MEMORY)? {
        Interface::V1 => v1(draft, &memory),
        Interface::V2 => v2(draft, &memory),
    }
}

/// Zero is "not asked", as in Docker and runc; combinations no kernel takes are refused here, where they can be explained.
fn checked(memory: &Memory) -> Result<Memory, PlanError> {
    let asked = |value: Option<i64>| value.filter(|value| *value != 0);
    let memory = Memory {
        limit: asked(memory.limit),
        swap: asked(memory.swap),
        reservation: asked(memory.reservation),
        ..memory.clone()
    };
    match (memory.limit, memory.swap) {
        (Some(limit @ 1..), Some(swap @ 1..)) if swap < limit => Err(bad_value(
            "memory.swap",
            swap,
            format!("it counts memory plus swap, so it cannot be below memory.limit ({limit})"),
        )),
        _ => match memory.swappiness {
            Some(swappiness) if swappiness > 100 => {
                Err(bad_value("memory.swappiness", swappiness, "it goes from 0 to 100"))
            }
            _ => Ok(memory),
        },
    }
}

/// Limit before memory plus swap fits a fresh group (the second must never be the smaller); the applier turns it round where old
/// values stand against it.
fn v1(draft: &mut Draft<'_>, memory: &Memory) -> Result<(), PlanError> {
    if let Some(limit) = memory.limit {
        draft.text("memory.limit", MEMORY, "memory.limit_in_bytes", limit.max(-1), BASIC);
        if limit < 0 && memory.swap.is_none() {
            // An unlimited group with the old ceiling on memory plus swap would not be unlimited.
            draft.text("memory.limit", MEMORY, "memory.memsw.limit_in_bytes", -1, SWAP_V1);
            if let Some(last) = draft.settings.last_mut() {
                last.missing = Missing::Skip;
            }
        }
    }
    if let Some(swap) = memory.swap {
        draft.text("memory.swap", MEMORY, "memory.memsw.limit_in_bytes", swap.max(-1), SWAP_V1);
    }
    if let Some(reservation) = memory.reservation {
        draft.text("memory.reservation", MEMORY, "memory.soft_limit_in_bytes", reservation.max(-1), BASIC);
    }
    if let Some(swappiness) = memory.swappiness {
        draft.text("memory.swappiness", MEMORY, "memory.swappiness", swappiness, BASIC);
    }
    if memory.disable_oom_killer {
        draft.text("memory.disable_oom_killer", MEMORY, "memory.oom_control", 1, BASIC);
    }
    Ok(())
}

fn v2(draft: &mut Draft<'_>, memory: &Memory) -> Result<(), PlanError> {
    if memory.disable_oom_killer {
        return Err(not_on_v2(
            "memory.disable_oom_killer",
            "set memory.high through unified to throttle instead of killing",
        ));
    }
    if memory.swappiness.is_some() {
        return Err(not_on_v2(
            "memory.swappiness",
            "limit swap itself (memory.swap), or set vm.swappiness for the host",
        ));
    }
    if let Some(swap) = memory.swap {
        // v2 counts swap alone. `checked` made sure a positive one comes with a limit it is not below.
        let alone = match memory.limit {
            Some(limit @ 1..) if swap > 0 => swap - limit,
            _ => -1,
        };
        draft.text("memory.swap", MEMORY, "memory.swap.max", or_max(alone), SWAP_V2);
    } else if memory.limit.is_some_and(|limit| limit < 0) {
        draft.text("memory.limit", MEMORY, "memory.swap.max", "max", SWAP_V2);
        if let Some(last) = draft.settings.last_mut() {
            last.missing = Missing::Skip;
        }
    }
    if let Some(limit) = memory.limit {
        let value = match u64::try_from(limit) {
            Ok(bytes) if memory.check_before_update => Value::AboveUsage(bytes),
            _ => Value::Text(or_max(limit)),
        };
        let file = "memory.max".into();
        draft.settings.push(Setting {
            limit: "memory.limit",
            controller: MEMORY,
            file,
            value,
            missing: Missing::Fail(BASIC),
        });
    }
    if let Some(reservation) = memory.reservation {
        draft.text("memory.reservation", MEMORY, "memory.low", or_max(reservation), BASIC);
    }
    Ok(())
}
