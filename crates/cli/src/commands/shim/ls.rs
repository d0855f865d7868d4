//! `berth shim ls`.

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{items, short_id, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style};

const COLUMNS: [Column; 5] = [
    Column::new("PID", "PID"),
    Column::new("Shim", "SHIM"),
    Column::new("Runtimes", "RUNTIMES"),
    Column::new("Count", "TASKS"),
    Column::new("Tasks", "CONTAINERS"),
];

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth shim ls\n  berth shim ls --format '{{.PID}} {{.Tasks}}'")]
pub(crate) struct Arguments {
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let answer = cx.client.get(&Query::new("/berth/shims").build())?;
    let rows = answer.as_array().into_iter().flatten().map(|shim| row(shim, arguments.no_trunc)).collect();
    let shown = ["PID", "Shim", "Runtimes", "Count", "Tasks"];
    Listing { known: &COLUMNS, shown: &shown, rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

fn row(shim: &Value, no_trunc: bool) -> Row {
    let tasks = items(shim, "Tasks");
    let name = |task: &Value| {
        let id = text(task, "Id");
        let id = if no_trunc || id.len() < 64 { id.to_owned() } else { short_id(id) };
        match text(task, "Namespace") {
            "default" => id,
            namespace => format!("{namespace}/{id}"),
        }
    };
    let mut runtimes: Vec<&str> = tasks.iter().map(|task| text(task, "Runtime")).collect();
    runtimes.sort_unstable();
    runtimes.dedup();
    let binary = text(shim, "Binary");
    let file = binary.rsplit('/').next().unwrap_or(binary);
    let mut row = Row::default();
    row.set("PID", shim["Pid"].as_u64().unwrap_or_default().to_string());
    row.set("Shim", if no_trunc { binary } else { file });
    row.set("Runtimes", runtimes.join(","));
    row.set("Count", tasks.len().to_string());
    row.set("Tasks", tasks.iter().map(name).collect::<Vec<_>>().join(","));
    row
}
