//! `berth export`.

use clap::Parser;

use crate::client::Payload;
use crate::commands::image::save::write_archive;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth export -o web.tar web\n  berth export web | tar t")]
pub(crate) struct Arguments {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Name or id
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let path = container_path(&arguments.container, "/export")?;
    write_archive(cx, arguments.output.as_deref(), "export", |cx| cx.client.stream("GET", &path, Payload::Nothing))
}
