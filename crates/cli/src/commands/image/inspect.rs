//! `berth image inspect`.

use clap::Parser;

use crate::commands::inspect::{Kind, Style, inspect};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth image inspect busybox\n  berth image inspect -f '{{join .RootFS.Layers \"\\n\"}}' busybox"
)]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Platform, os/arch
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    crate::commands::container::create::check_platform(arguments.platform.as_deref())?;
    let style = Style::new(arguments.format.as_deref(), arguments.json)?;
    inspect(cx, &[Kind::Image], &arguments.images, false, &style)
}
