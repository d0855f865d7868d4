//! `berth kill`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth kill web\n  berth kill -s HUP web")]
pub(crate) struct Arguments {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    for_each(&arguments.containers, Output::report, |name| {
        let path = Query::new(container_path(name, "/kill")?).with("signal", &arguments.signal);
        cx.client.post(&path.build(), None)?;
        cx.out.line(name)?;
        cx.out.flush()
    })
}
