//! `berth wait`.

use clap::Parser;

use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth wait web\n  code=$(berth wait job)")]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    for_each(&arguments.containers, Output::report, |name| {
        let answer = cx.client.post(&container_path(name, "/wait")?, None)?;
        cx.out.line(&answer["StatusCode"])?;
        cx.out.flush()
    })
}
