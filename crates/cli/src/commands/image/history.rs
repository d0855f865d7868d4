//! `berth history`.

use berth_types::{ByteCount, Timestamp};
use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{image_path, integer, short_id, size, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style, ago, shortened, shown_time};

const COLUMNS: [Column; 6] = [
    Column::new("ID", "IMAGE"),
    Column::new("CreatedSince", "CREATED"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("CreatedBy", "CREATED BY"),
    Column::new("Size", "SIZE"),
    Column::new("Comment", "COMMENT"),
];

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth history busybox\n  berth history --no-trunc --format '{{.Size}}\\t{{.CreatedBy}}' busybox"
)]
pub(crate) struct Arguments {
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Sizes and times for people (default true)
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    human: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Name or id
    image: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let answer = cx.client.get(&image_path(&arguments.image, "/history")?)?;
    let now = Timestamp::now();
    let rows: Vec<Row> = answer.as_array().into_iter().flatten().map(|entry| row(entry, now, &arguments)).collect();
    if arguments.quiet && style == Style::Table {
        for row in &rows {
            cx.out.line(row.get("ID").and_then(Value::as_str).unwrap_or_default())?;
        }
        return Ok(0);
    }
    let created = if arguments.human { "CreatedSince" } else { "CreatedAt" };
    Listing { known: &COLUMNS, shown: &["ID", created, "CreatedBy", "Size", "Comment"], rows }
        .print(&style, &mut cx.out)?;
    Ok(0)
}

fn row(entry: &Value, now: Timestamp, arguments: &Arguments) -> Row {
    let id = text(entry, "Id");
    let created = integer(entry, "Created");
    let created_by = text(entry, "CreatedBy").replace(['\t', '\n'], " ");
    let mut row = Row::default();
    row.set("ID", if arguments.no_trunc || id == "<missing>" { id.to_owned() } else { short_id(id) });
    row.set("CreatedSince", ago(created, now));
    row.set("CreatedAt", shown_time(created));
    row.set("CreatedBy", if arguments.no_trunc { created_by } else { shortened(&created_by, 45) });
    let bytes = size(entry, "Size");
    row.set("Size", if arguments.human { ByteCount(bytes).to_string() } else { bytes.to_string() });
    row.set("Comment", text(entry, "Comment"));
    row
}
