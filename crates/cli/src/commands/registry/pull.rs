//! `berth pull`, and the pulling of `run` and `create`.

use berth_types::ByteCount;
use clap::Parser;
use serde_json::Value;

use crate::client::{Payload, Query};
use crate::commands::objects::{integer, items, size, text};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output::follow_progress;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth pull busybox\n  \
    berth pull --plan registry.example/team/app:1.2\n  \
    berth pull localhost:5000/app@sha256:0123…\n\n\
    A pull that was interrupted goes on where it was: what came is kept for a week.")]
pub(crate) struct Arguments {
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Platform of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Say what would be fetched; fetch nothing: text or json
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    plan: Option<String>,
    /// Accepted for compatibility: content trust is not there, digests are always verified
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Name, with tag or digest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let _: bool = arguments.disable_content_trust;
    let name = &arguments.name;
    let reference: berth_types::Reference = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let is_plain = reference.tag().is_none() && reference.digest().is_none();
    if arguments.all_tags && !is_plain {
        return Err(Failure::new("a tag cannot be used with --all-tags"));
    }
    let mut path = query(&reference, arguments.all_tags).maybe("platform", arguments.platform.as_deref());
    cx.client.set_registry_auth(credentials::header_for(name, &cx.environment)?);
    if let Some(form) = &arguments.plan {
        path = path.with("plan", "1");
        let plan = cx.client.post(&path.build(), None)?;
        return print_plan(cx, &plan, form);
    }
    if is_plain && !arguments.all_tags && !arguments.quiet {
        cx.out.line("Using default tag: latest")?;
        cx.out.flush()?;
    }
    let response = cx.client.stream("POST", &path.build(), Payload::Nothing)?;
    let is_quiet = arguments.quiet;
    follow_progress(response, &mut cx.out, is_quiet, |out, message| {
        if is_quiet || !text(message, "id").is_empty() {
            return Ok(());
        }
        out.line(text(message, "status"))?;
        out.flush()
    })?;
    cx.out.line(if arguments.all_tags { reference.repository() } else { reference.with_default_tag().to_string() })?;
    Ok(0)
}

fn query(reference: &berth_types::Reference, all_tags: bool) -> Query {
    let query = Query::new("/images/create").with("fromImage", &reference.familiar_repository());
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => query.with("tag", &digest.to_string()),
        (None, Some(tag)) => query.with("tag", tag),
        (None, None) if all_tags => query,
        (None, None) => query.with("tag", "latest"),
    }
}

/// Pulls for `run` and `create`; all output goes to stderr.
pub(crate) fn pull_missing(cx: &mut Context, image: &str, platform: Option<&str>, is_quiet: bool) -> Outcome<()> {
    let reference: berth_types::Reference = image.parse().map_err(|error| Failure::new(format!("{error}")))?;
    cx.client.set_registry_auth(credentials::header_for(image, &cx.environment)?);
    let path = query(&reference, false).maybe("platform", platform).build();
    let response = cx.client.stream("POST", &path, Payload::Nothing)?;
    let name = reference.with_default_tag().familiar();
    let mut last = String::new();
    follow_progress(response, &mut cx.out, is_quiet, |_, message| {
        if text(message, "id").is_empty() {
            text(message, "status").clone_into(&mut last);
        }
        Ok(())
    })?;
    cx.client.set_registry_auth(None);
    if !is_quiet {
        cx.out.notice(if last.is_empty() { format!("pulled {name}") } else { last });
    }
    Ok(())
}

fn print_plan(cx: &mut Context, plan: &Value, form: &str) -> Outcome {
    match form {
        "json" => {
            cx.out.line(plan)?;
            return Ok(0);
        }
        "text" => {}
        other => return Err(Failure::new(format!("invalid --plan {other:?}")).hint("it is text or json")),
    }
    let bytes = |field: &str| ByteCount(size(plan, field));
    let hosts: Vec<&str> = items(plan, "hosts").iter().filter_map(Value::as_str).collect();
    cx.out.line(format!("image      {} ({})", text(plan, "reference"), text(plan, "platform")))?;
    cx.out.line(format!("from       {}", hosts.join(", then ")))?;
    cx.out.line(format!("digest     {}", text(plan, "digest")))?;
    for (field, what) in [("to_fetch", "fetch"), ("shared", "exists")] {
        for layer in items(plan, field) {
            let digest = layer[0].as_str().unwrap_or_default();
            let count = ByteCount(layer[1].as_u64().unwrap_or(0));
            cx.out.line(format!("{what:<10} {digest} {count}"))?;
        }
    }
    cx.out.line(format!("to fetch   {}", bytes("fetch_bytes")))?;
    if integer(plan, "resumed_bytes") > 0 {
        cx.out.line(format!("resumed    {} came with an earlier pull", bytes("resumed_bytes")))?;
    }
    cx.out.line(format!("shared     {}", bytes("shared_bytes")))?;
    cx.out.line(format!("unpacked   about {}", bytes("unpacked_bytes_estimated")))?;
    cx.out.line(format!("free       {}", bytes("free_bytes")))?;
    Ok(0)
}
