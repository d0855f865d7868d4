//! `berth container prune`.

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
#[command(after_help = "Examples:\n  berth container prune\n  berth container prune -f --filter until=24h")]
pub(crate) struct Arguments {
    /// Only those that match (until=24h, label=a=b)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let filters = parse_filters(&arguments.filter)?;
    if !arguments.force {
        confirm(cx, "WARNING! This will remove all stopped containers.")?;
    }
    let reclaimed = prune(cx, &filters)?;
    cx.out.line(format!("Total reclaimed space: {}", ByteCount(reclaimed).precise()))?;
    Ok(0)
}

/// Removes and lists them; returns the bytes that became free.
pub(crate) fn prune(cx: &mut Context, filters: &Filters) -> Outcome<u64> {
    let answer = cx.client.post(&Query::new("/containers/prune").filters(filters).build(), None)?;
    let deleted = items(&answer, "ContainersDeleted");
    if !deleted.is_empty() {
        cx.out.line("Deleted Containers:")?;
        for id in deleted.iter().filter_map(Value::as_str) {
            cx.out.line(id)?;
        }
        cx.out.line("")?;
    }
    Ok(size(&answer, "SpaceReclaimed"))
}
