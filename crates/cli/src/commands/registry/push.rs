//! `berth push`.

use clap::Parser;

use crate::client::{Payload, Query};
use crate::commands::objects::{image_path, text};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output::follow_progress;

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth push localhost:5000/app:1\n  berth push --all-tags registry.example/team/app"
)]
pub(crate) struct Arguments {
    /// Every tag of the repository that is here
    #[arg(short, long)]
    all_tags: bool,
    /// Nothing but failures
    #[arg(short, long)]
    quiet: bool,
    /// Not supported: an image is of one platform here
    #[arg(long, value_name = "PLATFORM", hide = true)]
    platform: Option<String>,
    /// Accepted for compatibility: content trust is not there
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Name and tag
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let _: bool = arguments.disable_content_trust;
    if arguments.platform.is_some() {
        return Err(Failure::not_yet("push --platform: an image here is of one platform"));
    }
    let reference: berth_types::Reference = arguments.name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    if reference.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference").hint("name a tag"));
    }
    if arguments.all_tags && reference.tag().is_some() {
        return Err(Failure::new("a tag cannot be used with --all-tags"));
    }
    let path = Query::new(image_path(&reference.familiar_repository(), "/push")?);
    let path = if arguments.all_tags { path } else { path.with("tag", reference.tag().unwrap_or("latest")) };
    let auth = credentials::header_for(&arguments.name, &cx.environment)?;
    // Docker's own clients always send one; e30= is an empty document.
    cx.client.set_registry_auth(Some(auth.unwrap_or_else(|| "e30=".to_owned())));
    let response = cx.client.stream("POST", &path.build(), Payload::Nothing)?;
    let is_quiet = arguments.quiet;
    follow_progress(response, &mut cx.out, is_quiet, |out, message| {
        let status = text(message, "status");
        if is_quiet || status.is_empty() || !text(message, "id").is_empty() {
            return Ok(());
        }
        out.line(status)?;
        out.flush()
    })?;
    if arguments.quiet {
        cx.out.line(if arguments.all_tags {
            reference.repository()
        } else {
            reference.with_default_tag().to_string()
        })?;
    }
    Ok(0)
}
