//! `berth system prune`.

use berth_types::ByteCount;
use clap::Parser;

use crate::commands::confirm::confirm;
use crate::commands::{container, image, volume};
use crate::context::Context;
use crate::failure::Outcome;
use crate::request::{Filters, parse_filters};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth system prune\n  berth system prune -a -f")]
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
    /// Also anonymous volumes that no container uses
    #[arg(long)]
    volumes: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let filters = parse_filters(&arguments.filter)?;
    if !arguments.force {
        let images = if arguments.all { "all images without at least one container" } else { "all dangling images" };
        let volumes = if arguments.volumes { "  - all anonymous volumes without at least one container\n" } else { "" };
        confirm(cx, &format!("WARNING! This will remove:\n  - all stopped containers\n  - {images}\n{volumes}"))?;
    }
    let containers = container::prune::prune(cx, &filters)?;
    let volumes = if arguments.volumes { volume::prune(cx, &without_until(&filters))? } else { 0 };
    let images = image::prune::prune(cx, arguments.all, filters)?;
    cx.out.line(format!("Total reclaimed space: {}", ByteCount(containers + volumes + images).precise()))?;
    Ok(0)
}

/// Volumes have no age in prune filters.
fn without_until(filters: &Filters) -> Filters {
    filters.iter().filter(|(key, _)| key.as_str() != "until").map(|(k, v)| (k.clone(), v.clone())).collect()
}
