//! `berth rmi`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::{image_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::Output;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth rmi busybox:1.36\n  berth rmi -f $(berth images -q)")]
pub(crate) struct Arguments {
    /// Remove all names of the image, also when stopped containers use it
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Not supported yet
    #[arg(long, hide = true)]
    platform: Vec<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if !arguments.platform.is_empty() {
        return Err(Failure::not_yet("--platform: multi-platform images are not supported"));
    }
    for_each(&arguments.images, Output::report, |name| {
        let path = Query::new(image_path(name, "")?).flag("force", arguments.force).flag("noprune", arguments.no_prune);
        let answer = match cx.client.delete(&path.build()) {
            Err(failure) if failure.status == 404 && arguments.force => {
                cx.out.notice(&failure);
                return Ok(());
            }
            other => other?,
        };
        for entry in answer.as_array().into_iter().flatten() {
            match (text(entry, "Untagged"), text(entry, "Deleted")) {
                ("", id) => cx.out.line(format!("Deleted: {id}"))?,
                (name, _) => cx.out.line(format!("Untagged: {name}"))?,
            }
        }
        cx.out.flush()
    })
}
