//! `berth network ls`.

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{joined_labels, labels, short_id, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style};
use crate::request::parse_filters;

const COLUMNS: [Column; 8] = [
    Column::new("ID", "NETWORK ID"),
    Column::new("Name", "NAME"),
    Column::new("Driver", "DRIVER"),
    Column::new("Scope", "SCOPE"),
    Column::new("IPv6", "IPV6"),
    Column::new("Internal", "INTERNAL"),
    Column::new("Labels", "LABELS"),
    Column::new("CreatedAt", "CREATED AT"),
];

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth network ls")]
pub(crate) struct Arguments {
    /// Only those that match (driver=bridge, name=host)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let answer = cx.client.get(&Query::new("/networks").filters(&parse_filters(&arguments.filter)?).build())?;
    let mut networks: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    networks.sort_by_key(|network| text(network, "Name").to_owned());
    let rows: Vec<Row> = networks.into_iter().map(|network| row(network, arguments.no_trunc)).collect();
    if arguments.quiet && style == Style::Table {
        for row in &rows {
            cx.out.line(row.get("ID").and_then(Value::as_str).unwrap_or_default())?;
        }
        return Ok(0);
    }
    Listing { known: &COLUMNS, shown: &["ID", "Name", "Driver", "Scope"], rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

fn row(network: &Value, no_trunc: bool) -> Row {
    let id = text(network, "Id");
    let labels = labels(network);
    let truth = |field: &str| network[field].as_bool().unwrap_or(false).to_string();
    let mut row = Row::default();
    row.set("ID", if no_trunc { id.to_owned() } else { short_id(id) });
    row.set("Name", text(network, "Name"));
    row.set("Driver", text(network, "Driver"));
    row.set("Scope", text(network, "Scope"));
    row.set("IPv6", truth("EnableIPv6"));
    row.set("Internal", truth("Internal"));
    row.set("Labels", joined_labels(&labels));
    row.set("CreatedAt", text(network, "Created"));
    row.labels = labels;
    row
}
