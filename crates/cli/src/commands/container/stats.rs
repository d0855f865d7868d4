//! `berth stats`: what containers use, drawn anew every second.
//!
//! Each round asks for one plain sample per container; rates are the difference of two samples, computed here.

use std::collections::HashMap;
use std::time::Duration;

use berth_types::ByteCount;
use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{container_path, items, short_id, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style};
use crate::pause::pause;

const COLUMNS: [Column; 9] = [
    Column::new("Container", "CONTAINER"),
    Column::new("ID", "CONTAINER ID"),
    Column::new("Name", "NAME"),
    Column::new("CPUPerc", "CPU %"),
    Column::new("MemUsage", "MEM USAGE / LIMIT"),
    Column::new("MemPerc", "MEM %"),
    Column::new("NetIO", "NET I/O"),
    Column::new("BlockIO", "BLOCK I/O"),
    Column::new("PIDs", "PIDS"),
];
const SHOWN: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
const ROUND: Duration = Duration::from_secs(1);
/// Between the two samples of the first round.
const FIRST_ROUND: Duration = Duration::from_millis(500);

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth stats\n  berth stats --no-stream --format '{{.Name}} {{.MemUsage}}' web db")]
pub(crate) struct Arguments {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// One round only
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids; all that run when none is given
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The counters of one sample that rates are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sample {
    cpu_ns: u64,
    system_ns: u64,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let mut samples = HashMap::new();
    // The first round only fills the samples, so that its rates have something to compare with.
    round(cx, &arguments, &mut samples)?;
    pause(FIRST_ROUND);
    loop {
        let rows = round(cx, &arguments, &mut samples)?;
        let listing = Listing { known: &COLUMNS, shown: &SHOWN, rows };
        let text = listing.render(&style)?;
        if !arguments.no_stream && cx.out.is_terminal && matches!(style, Style::Table | Style::TableTemplate(_)) {
            // Home, the new table with every line's rest cleared, then everything below.
            let text = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
            cx.out.write(text.as_bytes())?;
        } else {
            cx.out.write(text.as_bytes())?;
        }
        cx.out.flush()?;
        if arguments.no_stream {
            return Ok(0);
        }
        pause(ROUND);
    }
}

fn round(cx: &mut Context, arguments: &Arguments, samples: &mut HashMap<String, Sample>) -> Outcome<Vec<Row>> {
    let is_named = !arguments.containers.is_empty();
    let names: Vec<String> = if is_named {
        arguments.containers.clone()
    } else {
        let path = Query::new("/containers/json").flag("all", arguments.all).build();
        let list = cx.client.get(&path)?;
        list.as_array().into_iter().flatten().map(|container| text(container, "Id").to_owned()).collect()
    };
    let mut rows = Vec::with_capacity(names.len());
    for name in names {
        let path = Query::new(container_path(&name, "/stats")?).with("stream", "0").with("one-shot", "1").build();
        match cx.client.get(&path) {
            Ok(stats) => {
                let sample = sample(&stats);
                let before = samples.insert(name.clone(), sample).unwrap_or(sample);
                rows.push(row(&name, &stats, before, sample, arguments.no_trunc));
            }
            // It went away between the list and the sample.
            Err(failure) if failure.status == 404 && !is_named => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(rows)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn sample(stats: &Value) -> Sample {
    let cpu = &stats["cpu_stats"];
    Sample { cpu_ns: number(&cpu["cpu_usage"]["total_usage"]), system_ns: number(&cpu["system_cpu_usage"]) }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with two decimals")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with two decimals")]
fn cpu_percent(before: Sample, now: Sample, cpus: u64) -> f64 {
    let used = now.cpu_ns.saturating_sub(before.cpu_ns);
    percent(used, now.system_ns.saturating_sub(before.system_ns)) * cpus as f64
}

/// Memory in use without the cache that the kernel can drop at once.
fn memory_used(memory: &Value) -> u64 {
    let usage = number(&memory["usage"]);
    let detail = &memory["stats"];
    let inactive = detail["total_inactive_file"].as_u64().or_else(|| detail["inactive_file"].as_u64()).unwrap_or(0);
    if inactive < usage { usage - inactive } else { usage }
}

fn network(stats: &Value) -> (u64, u64) {
    let links = stats["networks"].as_object().into_iter().flatten();
    links.fold((0, 0), |(received, sent), (_, link)| {
        (received + number(&link["rx_bytes"]), sent + number(&link["tx_bytes"]))
    })
}

fn block(stats: &Value) -> (u64, u64) {
    let mut totals = (0, 0);
    for entry in items(&stats["blkio_stats"], "io_service_bytes_recursive") {
        match text(entry, "op").as_bytes().first() {
            Some(b'r' | b'R') => totals.0 += number(&entry["value"]),
            Some(b'w' | b'W') => totals.1 += number(&entry["value"]),
            _ => {}
        }
    }
    totals
}

fn row(asked: &str, stats: &Value, before: Sample, now: Sample, no_trunc: bool) -> Row {
    let id = text(stats, "id");
    let memory = &stats["memory_stats"];
    let (used, limit) = (memory_used(memory), number(&memory["limit"]));
    let cpus = number(&stats["cpu_stats"]["online_cpus"]).max(1);
    let pair = |(a, b): (u64, u64)| format!("{} / {}", ByteCount(a), ByteCount(b));
    let mut row = Row::default();
    row.set("Container", asked);
    row.set("ID", if no_trunc { id.to_owned() } else { short_id(id) });
    row.set("Name", text(stats, "name").trim_start_matches('/'));
    row.set("CPUPerc", format!("{:.2}%", cpu_percent(before, now, cpus)));
    row.set("MemUsage", format!("{} / {}", ByteCount(used).binary(), ByteCount(limit).binary()));
    row.set("MemPerc", format!("{:.2}%", percent(used, limit)));
    row.set("NetIO", pair(network(stats)));
    row.set("BlockIO", pair(block(stats)));
    row.set("PIDs", number(&stats["pids_stats"]["current"]).to_string());
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let stats = json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 5}, {"op": "Write", "value": 7}, {"op": "Total", "value": 9}]},
            "pids_stats": {"current": 4},
        });
        let now = sample(&stats);
        let row = row("web", &stats, Sample { cpu_ns: 200, system_ns: 1000 }, now, false);
        let field = |name: &str| row.get(name).unwrap().as_str().unwrap().to_owned();
        assert_eq!(field("CPUPerc"), "20.00%");
        assert_eq!(field("MemUsage"), "2MiB / 8MiB");
        assert_eq!(field("MemPerc"), "25.00%");
        assert_eq!(field("NetIO"), "1kB / 2kB");
        assert_eq!(field("BlockIO"), "5B / 7B");
        assert_eq!(field("PIDs"), "4");
        assert_eq!(field("Name"), "web");
    }
}
