//! `berth tag`.

use clap::Parser;

use crate::client::Query;
use crate::commands::container::commit::repository_and_tag;
use crate::commands::objects::image_path;
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth tag busybox:latest tools/busybox:1")]
pub(crate) struct Arguments {
    /// Name or id
    #[arg(value_name = "IMAGE[:TAG]")]
    source: String,
    /// The name it gets too
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let (repository, tag) = repository_and_tag(&arguments.target)?;
    let path = Query::new(image_path(&arguments.source, "/tag")?).with("repo", &repository).with("tag", &tag);
    cx.client.post(&path.build(), None)?;
    Ok(0)
}
