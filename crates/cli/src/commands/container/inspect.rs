//! `berth container inspect`.

use clap::Parser;

use crate::commands::inspect::{Kind, Style, inspect};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth container inspect web\n  berth container inspect -f '{{.State.Status}}' web"
)]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Add the sizes
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::new(arguments.format.as_deref(), arguments.json)?;
    inspect(cx, &[Kind::Container], &arguments.containers, arguments.size, &style)
}
