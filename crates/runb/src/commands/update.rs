//! `update`: limits from a file or from flags, in the specification's terms.

use std::path::Path;

use berth_oci::runtime::LinuxResources;
use berth_types::ByteCount;
use serde_json::{Map, Value, json};

use crate::arguments::UpdateArguments;
use crate::error::CommandError;
use crate::paths;

pub(crate) fn update(root: &Path, arguments: &UpdateArguments) -> Result<(), CommandError> {
    let (container, _) = paths::container(root, &arguments.id)?;
    let resources: LinuxResources = match &arguments.resources {
        Some(path) => paths::document(path)?,
        None => serde_json::from_value(from_flags(arguments)?)
            .map_err(|source| CommandError::Json { path: "the limits".to_owned(), source })?,
    };
    Ok(container.update(&resources)?)
}

fn from_flags(flags: &UpdateArguments) -> Result<Value, CommandError> {
    let cpu = section([
        ("period", flags.cpu_period.map(|v| json!(v))),
        ("quota", flags.cpu_quota.map(|v| json!(v))),
        ("burst", flags.cpu_burst.map(|v| json!(v))),
        ("shares", flags.cpu_shares.map(|v| json!(v))),
        ("realtimePeriod", flags.cpu_rt_period.map(|v| json!(v))),
        ("realtimeRuntime", flags.cpu_rt_runtime.map(|v| json!(v))),
        ("idle", flags.cpu_idle.map(|v| json!(v))),
        ("cpus", flags.cpuset_cpus.as_ref().map(|v| json!(v))),
        ("mems", flags.cpuset_mems.as_ref().map(|v| json!(v))),
    ]);
    let memory = section([
        ("limit", bytes(flags.memory.as_deref())?),
        ("reservation", bytes(flags.memory_reservation.as_deref())?),
        ("swap", bytes(flags.memory_swap.as_deref())?),
    ]);
    let block_io = section([("weight", flags.blkio_weight.map(|v| json!(v)))]);
    let pids = section([("limit", flags.pids_limit.map(|v| json!(v)))]);
    let all = section([("cpu", cpu), ("memory", memory), ("blockIO", block_io), ("pids", pids)]);
    all.ok_or_else(|| CommandError::Usage("no limit is named".to_owned()))
}

/// Only what is there; nothing at all is no section.
fn section<const N: usize>(entries: [(&str, Option<Value>); N]) -> Option<Value> {
    let map: Map<String, Value> =
        entries.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), value))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

fn bytes(text: Option<&str>) -> Result<Option<Value>, CommandError> {
    match text {
        None => Ok(None),
        Some("-1") => Ok(Some(json!(-1))),
        Some(text) => {
            let count: ByteCount = text.parse().map_err(|error| CommandError::Usage(format!("{error}")))?;
            Ok(Some(json!(count.0)))
        }
    }
}
