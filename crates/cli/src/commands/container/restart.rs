//! `berth restart`.

use clap::Parser;

use super::stop::Ending;
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth restart web\n  berth restart -s HUP -t 5 web")]
pub(crate) struct Arguments {
    #[command(flatten)]
    ending: Ending,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    arguments.ending.ask(cx, "/restart")
}
