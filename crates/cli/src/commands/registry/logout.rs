//! `berth logout`.

use clap::Parser;

use crate::context::Context;
use crate::credentials::{ConfigFile, registry_of_address};
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth logout registry.example")]
pub(crate) struct Arguments {
    /// Registry [default: Docker Hub]
    #[arg(value_name = "SERVER", default_value = "docker.io", hide_default_value = true)]
    server: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let registry = registry_of_address(&arguments.server);
    if ConfigFile::find(&cx.environment)?.erase(&registry)? {
        cx.out.line(format!("Removing login credentials for {registry}"))?;
    } else {
        cx.out.line(format!("Not logged in to {registry}"))?;
    }
    Ok(0)
}
