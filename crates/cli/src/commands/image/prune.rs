//! `berth image prune`.

use berth_types::ByteCount;
use clap::Parser;

use crate::client::Query;
use crate::commands::confirm::confirm;
use crate::commands::objects::{items, size, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::request::{Filters, parse_filters};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth image prune\n  berth image prune -a -f --filter until=24h")]
pub(crate) struct Arguments {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
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
        let what = if arguments.all {
            "WARNING! This will remove all images without at least one container associated to them."
        } else {
            "WARNING! This will remove all dangling images."
        };
        confirm(cx, what)?;
    }
    let reclaimed = prune(cx, arguments.all, filters)?;
    cx.out.line(format!("Total reclaimed space: {}", ByteCount(reclaimed).precise()))?;
    Ok(0)
}

/// Removes and lists them; returns the bytes that became free.
pub(crate) fn prune(cx: &mut Context, all: bool, mut filters: Filters) -> Outcome<u64> {
    filters.insert("dangling".to_owned(), vec![(!all).to_string()]);
    let answer = cx.client.post(&Query::new("/images/prune").filters(&filters).build(), None)?;
    let deleted = items(&answer, "ImagesDeleted");
    if !deleted.is_empty() {
        cx.out.line("Deleted Images:")?;
        for entry in deleted {
            match (text(entry, "Untagged"), text(entry, "Deleted")) {
                ("", id) => cx.out.line(format!("deleted: {id}"))?,
                (name, _) => cx.out.line(format!("untagged: {name}"))?,
            }
        }
        cx.out.line("")?;
    }
    Ok(size(&answer, "SpaceReclaimed"))
}
