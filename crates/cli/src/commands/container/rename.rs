//! `berth rename`.

use clap::Parser;

use crate::client::Query;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth rename web web-old")]
pub(crate) struct Arguments {
    /// Name or id
    container: String,
    /// The name it gets
    new_name: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.new_name.is_empty() {
        return Err(Failure::new("the new name is empty"));
    }
    let path = Query::new(container_path(&arguments.container, "/rename")?).with("name", &arguments.new_name);
    cx.client.post(&path.build(), None)?;
    Ok(0)
}
