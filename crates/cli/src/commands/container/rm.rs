//! `berth rm`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth rm web\n  berth rm -f web db")]
pub(crate) struct Arguments {
    /// Kill a running container first; a missing one is no failure
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Not supported
    #[arg(short, long, hide = true)]
    link: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.link {
        return Err(Failure::not_yet("--link: links are not supported"));
    }
    for_each(&arguments.containers, Output::report, |name| {
        let path = Query::new(container_path(name, "")?).flag("force", arguments.force).flag("v", arguments.volumes);
        match cx.client.delete(&path.build()) {
            Err(failure) if failure.status == 404 && arguments.force => {
                cx.out.notice(&failure);
                return Ok(());
            }
            other => other?,
        };
        cx.out.line(name)?;
        cx.out.flush()
    })
}
