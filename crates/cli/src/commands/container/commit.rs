//! `berth commit`.

use berth_types::Reference;
use clap::Parser;
use serde_json::json;

use crate::client::Query;
use crate::commands::objects::text;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth commit web web:patched\n  berth commit -c 'CMD [\"sh\"]' -m 'with tools' web tools"
)]
pub(crate) struct Arguments {
    /// Author
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Dockerfile instruction to apply (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, ...)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Message
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze the container meanwhile (default true)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pause: bool,
    /// Do not freeze the container
    #[arg(long)]
    no_pause: bool,
    /// Name or id
    container: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

/// Repository and tag of a name, checked.
pub(crate) fn repository_and_tag(name: &str) -> Outcome<(String, String)> {
    let reference: Reference =
        name.parse().map_err(|error| Failure::new(format!("invalid image name {name:?}")).because(&error))?;
    if reference.digest().is_some() {
        return Err(Failure::new(format!("invalid image name {name:?}: a new image cannot be named by a digest")));
    }
    let tag = reference.tag().unwrap_or("latest").to_owned();
    Ok((reference.familiar_repository(), tag))
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let pause = arguments.pause && !arguments.no_pause;
    let mut path = Query::new("/commit").with("container", &arguments.container);
    if let Some(name) = &arguments.reference {
        let (repository, tag) = repository_and_tag(name)?;
        path = path.with("repo", &repository).with("tag", &tag);
    }
    path = path
        .maybe("comment", arguments.message.as_deref())
        .maybe("author", arguments.author.as_deref())
        .with("pause", if pause { "1" } else { "0" });
    for change in &arguments.change {
        path = path.with("changes", change);
    }
    let answer = cx.client.post(&path.build(), Some(json!({})))?;
    cx.out.line(text(&answer, "Id"))?;
    Ok(0)
}
