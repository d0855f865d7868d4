//! `berth manifest inspect`.

use clap::Parser;

use crate::client::Query;
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth manifest inspect busybox\n  \
    berth manifest inspect --referrers registry.example/app:1")]
pub(crate) struct Arguments {
    /// What refers to the image (signatures, bills of materials) instead of the image's own manifest
    #[arg(long)]
    referrers: bool,
    /// Accepted for compatibility: berthd is told with --insecure-registry
    #[arg(long, hide = true)]
    insecure: bool,
    /// Not supported
    #[arg(short, long, hide = true)]
    verbose: bool,
    /// Name, with tag or digest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.verbose {
        return Err(Failure::not_yet("manifest inspect --verbose"));
    }
    if arguments.insecure {
        return Err(Failure::new("the daemon decides which registries may be insecure")
            .hint("start berthd with --insecure-registry HOST"));
    }
    let verb = if arguments.referrers { "referrers" } else { "manifest" };
    cx.client.set_registry_auth(credentials::header_for(&arguments.name, &cx.environment)?);
    let answer = cx.client.get(&format!("/distribution/{}/{verb}", Query::segment(&arguments.name)))?;
    let text = serde_json::to_string_pretty(&answer)
        .map_err(|error| Failure::new("the manifest cannot be shown").because(&error))?;
    cx.out.line(text)?;
    Ok(0)
}
