//! `berth create`, and the creating half of `run`.

use clap::Parser;
use serde_json::Value;

use super::cidfile::CidFile;
use super::{plan, trace};
use crate::client::Query;
use crate::commands::objects::{items, text};
use crate::commands::registry::pull_missing;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::{ContainerOptions, CreateRequest, create_request};
use crate::timeline::{Form, Timeline};

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Examples:\n  \
        berth create --name web -p 8080:80 nginx\n  \
        berth create --plan busybox true"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: ContainerOptions,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let options = &arguments.options;
    let is_detached = false;
    let request = request(cx, options, is_detached)?;
    if let Some(form) = &options.object.plan {
        let planned = self::plan(cx, &request)?;
        return plan::print_plan(cx, &planned, form);
    }
    let id = create(cx, options, &request)?;
    cx.out.line(&id)?;
    cx.out.flush()?;
    if let Some(form) = &options.object.trace {
        let report = cx.client.get(&trace::container_trace(&id)?)?;
        Timeline::recalled("create", &report).show(cx, &Form::parse("--trace", form)?)?;
    }
    Ok(0)
}

/// Parses the flags and says what they make us warn of.
pub(super) fn request(cx: &Context, options: &ContainerOptions, is_detached: bool) -> Outcome<CreateRequest> {
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let request = create_request(options, is_detached, &directory, &cx.environment)?;
    check_platform(options.object.platform.as_deref())?;
    for warning in &request.warnings {
        cx.out.notice(format!("warning: {warning}"));
    }
    Ok(request)
}

/// Only this machine's own platform can be run.
pub(crate) fn check_platform(platform: Option<&str>) -> Outcome<()> {
    let own = format!("linux/{}", berth_types::architecture::host().0);
    match platform {
        None | Some("" | "linux") => Ok(()),
        Some(platform) if platform == own => Ok(()),
        Some(platform) => Err(Failure::not_yet(format!("--platform {platform}: this machine runs {own} images only"))),
    }
}

/// The dry run: steps and reasons, nothing created.
pub(super) fn plan(cx: &mut Context, request: &CreateRequest) -> Outcome<Value> {
    let path = Query::new("/containers/create").with("plan", "1").maybe("name", request.name.as_deref());
    cx.client.post(&path.build(), Some(request.body.clone())).map_err(with_image_hint)
}

/// Creates the container, writes the id file, prints the daemon's warnings; returns the id.
pub(super) fn create(cx: &mut Context, options: &ContainerOptions, request: &CreateRequest) -> Outcome<String> {
    let cidfile = options.object.cidfile.as_deref().map(CidFile::create).transpose()?;
    let path = Query::new("/containers/create")
        .maybe("name", request.name.as_deref())
        .maybe("platform", request.platform.as_deref())
        .build();
    let (image, object) = (request.body["Image"].as_str().unwrap_or_default().to_owned(), &options.object);
    let platform = object.platform.as_deref();
    if object.pull == "always" {
        pull_missing(cx, &image, platform, object.quiet)?;
    }
    let answer = match cx.client.post(&path, Some(request.body.clone())) {
        Err(failure) if object.pull == "missing" && is_missing_image(&failure) => {
            if !object.quiet {
                cx.out.notice(format!("Unable to find image '{image}' locally"));
            }
            pull_missing(cx, &image, platform, object.quiet)?;
            cx.client.post(&path, Some(request.body.clone()))?
        }
        other => other.map_err(with_image_hint)?,
    };
    for warning in items(&answer, "Warnings").iter().filter_map(Value::as_str) {
        cx.out.notice(format!("warning: {warning}"));
    }
    let id = text(&answer, "Id").to_owned();
    if id.is_empty() {
        return Err(Failure::new("the daemon created a container but did not say its id"));
    }
    if let Some(cidfile) = cidfile {
        cidfile.keep(&id)?;
    }
    Ok(id)
}

/// What is missing at create is nearly always the image.
fn with_image_hint(failure: Failure) -> Failure {
    if failure.status == 404 && failure.hint.is_none() {
        return failure.hint("fetch it with `berth pull NAME`, or load it from an archive with `berth load -i FILE`");
    }
    failure
}

fn is_missing_image(failure: &Failure) -> bool {
    failure.status == 404 && failure.message.to_ascii_lowercase().starts_with("no such image")
}
