//! `berth system df`.

use berth_types::{ByteCount, Timestamp};
use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{integer, items, short_id, size, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style, Tabs, ago};

const COLUMNS: [Column; 5] = [
    Column::new("Type", "TYPE"),
    Column::new("TotalCount", "TOTAL"),
    Column::new("Active", "ACTIVE"),
    Column::new("Size", "SIZE"),
    Column::new("Reclaimable", "RECLAIMABLE"),
];

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth system df\n  berth system df -v")]
pub(crate) struct Arguments {
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Each image and each container
    #[arg(short, long)]
    verbose: bool,
}

/// One kind of object: how many, how many in use, bytes, bytes that could be freed.
struct Usage {
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let answer = cx.client.get("/system/df")?;
    if arguments.verbose && style == Style::Table {
        return verbose(cx, &answer);
    }
    let rows = vec![
        row("Images", &images(&answer)),
        row("Containers", &containers(&answer)),
        row("Local Volumes", &others(items(&answer, "Volumes"))),
        row("Build Cache", &others(items(&answer, "BuildCache"))),
    ];
    let shown = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    Listing { known: &COLUMNS, shown: &shown, rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

fn images(answer: &Value) -> Usage {
    let images = items(answer, "Images");
    let active: Vec<&Value> = images.iter().filter(|image| integer(image, "Containers") > 0).collect();
    let used: u64 = active.iter().map(|image| size(image, "Size").saturating_sub(size(image, "SharedSize"))).sum();
    let bytes = size(answer, "LayersSize");
    Usage { total: images.len(), active: active.len(), bytes, reclaimable: bytes.saturating_sub(used) }
}

fn containers(answer: &Value) -> Usage {
    let containers = items(answer, "Containers");
    let is_active = |container: &&Value| matches!(text(container, "State"), "running" | "paused" | "restarting");
    let bytes = containers.iter().map(|container| size(container, "SizeRw")).sum();
    let used: u64 = containers.iter().filter(is_active).map(|container| size(container, "SizeRw")).sum();
    let active = containers.iter().filter(is_active).count();
    Usage { total: containers.len(), active, bytes, reclaimable: bytes.saturating_sub(used) }
}

/// Volumes and build records: as the daemon counts them.
fn others(list: &[Value]) -> Usage {
    let bytes = |entry: &Value| size(entry, "Size") + size(&entry["UsageData"], "Size");
    let is_active =
        |entry: &&Value| entry["InUse"].as_bool().unwrap_or(false) || integer(&entry["UsageData"], "RefCount") > 0;
    let total: u64 = list.iter().map(bytes).sum();
    let used: u64 = list.iter().filter(is_active).map(bytes).sum();
    let active = list.iter().filter(is_active).count();
    Usage { total: list.len(), active, bytes: total, reclaimable: total.saturating_sub(used) }
}

fn row(kind: &str, usage: &Usage) -> Row {
    let mut row = Row::default();
    let reclaimable = ByteCount(usage.reclaimable).precise();
    let percent = (u128::from(usage.reclaimable) * 100).checked_div(u128::from(usage.bytes));
    row.set("Type", kind);
    row.set("TotalCount", usage.total.to_string());
    row.set("Active", usage.active.to_string());
    row.set("Size", ByteCount(usage.bytes).precise());
    row.set("Reclaimable", percent.map_or(reclaimable.clone(), |percent| format!("{reclaimable} ({percent}%)")));
    row
}

fn verbose(cx: &mut Context, answer: &Value) -> Outcome {
    let now = Timestamp::now();
    let mut table = "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n".to_owned();
    for image in items(answer, "Images") {
        let name = items(image, "RepoTags").first().and_then(Value::as_str).unwrap_or("<none>:<none>");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let (whole, shared) = (size(image, "Size"), size(image, "SharedSize"));
        table.push_str(&format!(
            "{repository}\t{tag}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            short_id(text(image, "Id")),
            ago(integer(image, "Created"), now),
            ByteCount(whole),
            ByteCount(shared),
            ByteCount(whole.saturating_sub(shared)),
            integer(image, "Containers").max(0),
        ));
    }
    cx.out.line("Images space usage:\n")?;
    cx.out.write(Tabs::LISTING.layout(&table).as_bytes())?;
    let mut table = "CONTAINER ID\tIMAGE\tSIZE\tCREATED\tSTATUS\tNAMES\n".to_owned();
    for container in items(answer, "Containers") {
        let name = items(container, "Names").first().and_then(Value::as_str).unwrap_or_default();
        table.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\n",
            short_id(text(container, "Id")),
            text(container, "Image"),
            ByteCount(size(container, "SizeRw")),
            ago(integer(container, "Created"), now),
            text(container, "Status"),
            name.trim_start_matches('/'),
        ));
    }
    cx.out.line("\nContainers space usage:\n")?;
    cx.out.write(Tabs::LISTING.layout(&table).as_bytes())?;
    // An engine that is not ours does not tell.
    let owners = items(answer, "Owners");
    if owners.is_empty() {
        return Ok(0);
    }
    let mut table = "OWNER\tCOUNT\tON DISK\n".to_owned();
    for owner in owners {
        let bytes = ByteCount(size(owner, "Bytes"));
        table.push_str(&format!("{}\t{}\t{bytes}\n", text(owner, "Kind"), integer(owner, "Count")));
    }
    let all = ByteCount(owners.iter().map(|owner| size(owner, "Bytes")).sum());
    table.push_str(&format!("all\t\t{all}\n"));
    cx.out.line("\nWhere the bytes are:\n")?;
    cx.out.write(Tabs::LISTING.layout(&table).as_bytes())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums() {
        let answer = json!({
            "LayersSize": 1000,
            "Images": [{"Size": 600, "SharedSize": 100, "Containers": 1}, {"Size": 500, "SharedSize": 100, "Containers": 0}],
            "Containers": [{"SizeRw": 10, "State": "running"}, {"SizeRw": 30, "State": "exited"}],
        });
        let images = row("Images", &images(&answer));
        assert_eq!(images.get("Reclaimable").unwrap(), "500B (50%)");
        assert_eq!(images.get("Active").unwrap(), "1");
        let containers = row("Containers", &containers(&answer));
        assert_eq!(containers.get("Reclaimable").unwrap(), "30B (75%)");
        assert_eq!(row("Build Cache", &others(&[])).get("Reclaimable").unwrap(), "0B");
    }
}
