//! `berth volume inspect`.

use clap::Parser;

use crate::commands::inspect::{Kind, Style, inspect};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth volume inspect data\n  berth volume inspect -f '{{.Mountpoint}}' data")]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::new(arguments.format.as_deref(), arguments.json)?;
    inspect(cx, &[Kind::Volume], &arguments.volumes, false, &style)
}
