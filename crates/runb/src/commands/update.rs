//! `update`: limits from a file or from flags, in the specification's terms.

use std::path::Path;

use berth_oci::runtime::LinuxResources;
use berth_runtime::Status;
use berth_types::ByteCount;
use serde_json::{Map, Value, json};

use crate::arguments::UpdateArguments;
use crate::arguments::flag::Given;
use crate::error::CommandError;
use crate::paths;

pub(crate) fn update(root: &Path, arguments: &UpdateArguments) -> Result<(), CommandError> {
    let container = paths::container(root, &arguments.id)?;
    for flag in ["l3-cache-schema", "mem-bw-schema"] {
        if arguments.given.last(flag).is_some_and(|schema| !schema.is_empty()) {
            return Err(CommandError::NotYet("changing Intel RDT (--l3-cache-schema, --mem-bw-schema)"));
        }
    }
    let mut asked = match &arguments.resources {
        Some(path) => paths::document(path)?,
        None => from_flags(&arguments.given).map_err(CommandError::Usage)?,
    };
    complete(&mut asked);
    let resources: LinuxResources = serde_json::from_str(&asked.to_string())
        .map_err(|source| CommandError::Json { path: "the limits".to_owned(), source })?;
    if container.status() == Status::Stopped {
        return Err(CommandError::State("container not running".to_owned()));
    }
    Ok(container.update(&resources)?)
}

/// What runc adds and leaves out: lifting the memory limit lifts that of memory and swap, which may not be lower; the devices
/// a container may use are not changed here.
fn complete(asked: &mut Value) {
    let unlimited = |value: &Value| value.as_i64() == Some(-1);
    if let Some(memory) = asked.get_mut("memory").and_then(Value::as_object_mut)
        && memory.get("limit").is_some_and(unlimited)
        && memory.get("swap").is_none_or(Value::is_null)
    {
        memory.insert("swap".to_owned(), json!(-1));
    }
    if let Some(asked) = asked.as_object_mut() {
        asked.remove("devices");
    }
}

fn from_flags(given: &Given) -> Result<Value, String> {
    let unsigned = |flag: &str| given.parsed::<u64>(flag).map(|number| number.map(|number| json!(number)));
    let signed = |flag: &str| given.parsed::<i64>(flag).map(|number| number.map(|number| json!(number)));
    let text = |flag: &str| given.last(flag).filter(|text| !text.is_empty()).map(|text| json!(text));
    let cpu = section([
        ("period", unsigned("cpu-period")?),
        ("quota", signed("cpu-quota")?),
        ("burst", unsigned("cpu-burst")?),
        ("shares", unsigned("cpu-share")?.or(unsigned("cpu-shares")?)),
        ("realtimePeriod", unsigned("cpu-rt-period")?),
        ("realtimeRuntime", signed("cpu-rt-runtime")?),
        ("idle", signed("cpu-idle")?),
        ("cpus", text("cpuset-cpus")),
        ("mems", text("cpuset-mems")),
    ]);
    let memory = section([
        ("limit", bytes(given, "memory")?),
        ("reservation", bytes(given, "memory-reservation")?),
        ("swap", bytes(given, "memory-swap")?),
        ("kernel", bytes(given, "kernel-memory")?),
        ("kernelTCP", bytes(given, "kernel-memory-tcp")?),
    ]);
    let weight = given.parsed::<u16>("blkio-weight")?.filter(|weight| *weight != 0);
    let block_io = section([("weight", weight.map(|weight| json!(weight)))]);
    let pids = section([("limit", signed("pids-limit")?)]);
    Ok(section([("cpu", cpu), ("memory", memory), ("blockIO", block_io), ("pids", pids)]).unwrap_or_else(|| json!({})))
}

/// Only what is there; nothing at all is no section.
fn section<const N: usize>(entries: [(&str, Option<Value>); N]) -> Option<Value> {
    let map: Map<String, Value> =
        entries.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), value))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

fn bytes(given: &Given, flag: &str) -> Result<Option<Value>, String> {
    match given.last(flag).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some("-1") => Ok(Some(json!(-1))),
        Some(text) => {
            let count: ByteCount = text.parse().map_err(|error| format!("invalid value for {flag}: {error}"))?;
            Ok(Some(json!(count.0)))
        }
    }
}
