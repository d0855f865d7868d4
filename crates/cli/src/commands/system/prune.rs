//! `berth system prune`.

use berth_types::ByteCount;
use clap::Parser;

use crate::commands::confirm::confirm;
use crate::commands::{container, image};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::parse_filters;

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
    /// Not supported yet
    #[arg(long, hide = true)]
    volumes: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.volumes {
        return Err(Failure::not_yet("--volumes: named volumes are not supported"));
    }
    let filters = parse_filters(&arguments.filter)?;
    if !arguments.force {
        let images = if arguments.all { "all images without at least one container" } else { "all dangling images" };
        confirm(cx, &format!("WARNING! This will remove:\n  - all stopped containers\n  - {images}\n"))?;
    }
    let containers = container::prune::prune(cx, &filters)?;
    let images = image::prune::prune(cx, arguments.all, filters)?;
    cx.out.line(format!("Total reclaimed space: {}", ByteCount(containers + images).precise()))?;
    Ok(0)
}
