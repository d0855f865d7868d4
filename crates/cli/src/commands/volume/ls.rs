//! `berth volume ls`.

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{items, joined_labels, labels, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style};
use crate::request::parse_filters;

const COLUMNS: [Column; 5] = [
    Column::new("Driver", "DRIVER"),
    Column::new("Name", "VOLUME NAME"),
    Column::new("Scope", "SCOPE"),
    Column::new("Mountpoint", "MOUNTPOINT"),
    Column::new("Labels", "LABELS"),
];

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth volume ls\n  berth volume ls -q --filter dangling=true")]
pub(crate) struct Arguments {
    /// Only those that match (dangling=true, name=data, label=a=b)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let answer = cx.client.get(&Query::new("/volumes").filters(&parse_filters(&arguments.filter)?).build())?;
    let mut volumes: Vec<&Value> = items(&answer, "Volumes").iter().collect();
    volumes.sort_by_key(|volume| text(volume, "Name").to_owned());
    if arguments.quiet && style == Style::Table {
        return volumes.iter().try_for_each(|volume| cx.out.line(text(volume, "Name"))).map(|()| 0);
    }
    let rows = volumes.into_iter().map(row).collect();
    Listing { known: &COLUMNS, shown: &["Driver", "Name"], rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

fn row(volume: &Value) -> Row {
    let labels = labels(volume);
    let mut row = Row::default();
    for field in ["Driver", "Name", "Scope", "Mountpoint"] {
        row.set(field, text(volume, field));
    }
    row.set("Labels", joined_labels(&labels));
    row.labels = labels;
    row
}
