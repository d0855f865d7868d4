//! `berth stop`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth stop web\n  berth stop -t 0 web db")]
pub(crate) struct Arguments {
    #[command(flatten)]
    ending: Ending,
}

// How `stop` and `restart` end a run.
#[derive(Debug, clap::Args)]
pub(super) struct Ending {
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before the kill; -1 waits without end
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout_seconds: Option<i64>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    arguments.ending.ask(cx, "/stop")
}

impl Ending {
    /// Posts to each container's `operation`, and prints its name when that is done.
    pub(super) fn ask(&self, cx: &mut Context, operation: &str) -> Outcome {
        for_each(&self.containers, Output::report, |name| {
            let timeout = self.timeout_seconds.map(|seconds| seconds.to_string());
            let path = Query::new(container_path(name, operation)?)
                .maybe("signal", self.signal.as_deref())
                .maybe("t", timeout.as_deref());
            cx.client.post(&path.build(), None)?;
            cx.out.line(name)?;
            cx.out.flush()
        })
    }
}
