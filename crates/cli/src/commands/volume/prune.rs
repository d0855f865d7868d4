//! `berth volume prune`.

use berth_types::ByteCount;
use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::confirm::confirm;
use crate::commands::objects::{items, size};
use crate::context::Context;
use crate::failure::Outcome;
use crate::request::{Filters, parse_filters};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth volume prune\n  berth volume prune -a -f --filter label!=keep")]
pub(crate) struct Arguments {
    /// Also named volumes, not only anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Only those that match (label=a=b, label!=keep)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let mut filters = parse_filters(&arguments.filter)?;
    if arguments.all {
        filters.insert("all".to_owned(), vec!["true".to_owned()]);
    }
    if !arguments.force {
        let which = if arguments.all { "all" } else { "anonymous" };
        confirm(cx, &format!("WARNING! This will remove {which} volumes not used by at least one container."))?;
    }
    let reclaimed = prune(cx, &filters)?;
    cx.out.line(format!("Total reclaimed space: {}", ByteCount(reclaimed).precise()))?;
    Ok(0)
}

/// Removes and lists them; returns the bytes that became free.
pub(crate) fn prune(cx: &mut Context, filters: &Filters) -> Outcome<u64> {
    let answer = cx.client.post(&Query::new("/volumes/prune").filters(filters).build(), None)?;
    let deleted = items(&answer, "VolumesDeleted");
    if !deleted.is_empty() {
        cx.out.line("Deleted Volumes:")?;
        for name in deleted.iter().filter_map(Value::as_str) {
            cx.out.line(name)?;
        }
        cx.out.line("")?;
    }
    Ok(size(&answer, "SpaceReclaimed"))
}
