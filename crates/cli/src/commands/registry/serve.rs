//! `berth registry serve`: `berthd registry serve` in our place.

use std::os::unix::process::CommandExt as _;

use clap::Parser;

use crate::client::find_daemon;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth registry serve --store /srv/images\n  \
    berth registry serve --listen 0.0.0.0:5000      others may pull, this machine may push\n\n\
    There is no password and no TLS: other machines need `berthd --insecure-registry HOST:5000`.")]
pub(crate) struct Arguments {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
    /// Directory of what it has
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth-registry")]
    store: String,
    /// Who may push: never, loopback, always
    #[arg(long, value_name = "WHO", default_value = "loopback")]
    push: String,
}

pub(crate) fn run(arguments: Arguments, _: &mut Context) -> Outcome {
    let program = find_daemon().ok_or_else(|| Failure::new("berthd was not found beside berth or on PATH"))?;
    let words =
        ["registry", "serve", "--listen", &arguments.listen, "--store", &arguments.store, "--push", &arguments.push];
    let error = std::process::Command::new(&program).args(words).exec();
    Err(Failure::new(format!("cannot run {}", program.display())).because(&error))
}
