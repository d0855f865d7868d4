//! `berth volume rm`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::volume_path;
use crate::context::Context;
use crate::failure::{Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth volume rm data\n  berth volume rm $(berth volume ls -q --filter dangling=true)"
)]
pub(crate) struct Arguments {
    /// No failure when it is not there
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    for_each(&arguments.volumes, Output::report, |name| {
        cx.client.delete(&Query::new(volume_path(name, "")?).flag("force", arguments.force).build())?;
        cx.out.line(name)?;
        cx.out.flush()
    })
}
