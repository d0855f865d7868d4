//! `berth trace`.

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::timeline::{Form, Timeline};

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth trace [OPTIONS] CONTAINER",
    after_help = "Examples:\n  berth trace web\n  berth trace --format chrome:/tmp/web.json web   # open it in https://ui.perfetto.dev\n  \
        berth trace --format otlp:http://127.0.0.1:4318 web\n\n\
        The engine's own steps are kept for every start; those of the shim and of the kernel for one that was run with --trace."
)]
pub(crate) struct Arguments {
    /// text, json, chrome or otlp; with :FILE or, for otlp, :http://HOST[:PORT][/PATH] it goes there
    #[arg(short, long, value_name = "FORM[:TARGET]", default_value = "text")]
    format: String,
    /// Of this exec, by its id, instead of the container's start
    #[arg(long, value_name = "ID")]
    exec: Option<String>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let format = if arguments.json { "json" } else { &arguments.format };
    let form = Form::parse("--format", format)?.or_stdout();
    let (operation, path) = match &arguments.exec {
        Some(exec) => ("exec", exec_trace(exec)),
        None => ("start", container_trace(&arguments.container)?),
    };
    let report: Value = cx.client.get(&path)?;
    let timeline = Timeline::recalled(operation, &report);
    if timeline.is_empty() {
        return Err(Failure::new(format!("{} has not been started", arguments.container)));
    }
    timeline.show(cx, &form)?;
    Ok(0)
}

pub(super) fn container_trace(id: &str) -> Outcome<String> {
    Ok(format!("/berth{}", container_path(id, "/trace")?))
}

pub(super) fn exec_trace(id: &str) -> String {
    format!("/berth/exec/{}/trace", Query::segment(id))
}
