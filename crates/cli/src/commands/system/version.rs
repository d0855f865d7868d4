//! `berth version`.

use clap::Parser;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::commands::objects::text;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::template::{Data, Template};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth version\n  berth version -f '{{.Server.Version}}'")]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let server = cx.client.get("/version");
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": cx.client.version(),
        "DefaultAPIVersion": Client::wanted_version(), "Os": std::env::consts::OS, "Arch": berth_types::architecture::host().0,
    });
    let failure = server.as_ref().err().cloned();
    let whole = json!({"Client": client, "Server": server.unwrap_or(Value::Null)});
    match (arguments.format.as_deref(), arguments.json) {
        (Some(_), true) => return Err(Failure::new("--format and --json exclude each other")),
        (Some("json"), _) | (None, true) => cx.out.line(&whole)?,
        (Some(format), _) => {
            if let Some(failure) = failure.clone().filter(|_| format.contains(".Server")) {
                return Err(failure);
            }
            cx.out.line(Template::parse(format)?.render(&Data { value: &whole, labels: None })?)?;
        }
        (None, _) => print(cx, &whole)?,
    }
    cx.out.flush()?;
    failure.map_or(Ok(0), Err)
}

fn print(cx: &mut Context, whole: &Value) -> Outcome<()> {
    let (client, server) = (&whole["Client"], &whole["Server"]);
    cx.out.line("Client: Berth")?;
    line(cx, 1, "Version", text(client, "Version"))?;
    line(cx, 1, "API version", text(client, "ApiVersion"))?;
    line(cx, 1, "OS/Arch", &format!("{}/{}", text(client, "Os"), text(client, "Arch")))?;
    if server.is_null() {
        return Ok(());
    }
    let platform = text(&server["Platform"], "Name");
    cx.out.line(format!("\nServer: {}", if platform.is_empty() { "Berth" } else { platform }))?;
    let components = server["Components"].as_array().cloned().unwrap_or_default();
    if components.is_empty() {
        let details: Map<String, Value> = server.as_object().cloned().unwrap_or_default();
        return details
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?)))
            .try_for_each(|(name, value)| line(cx, 1, name, value));
    }
    for component in &components {
        cx.out.line(format!(" {}:", text(component, "Name")))?;
        line(cx, 2, "Version", text(component, "Version"))?;
        for (name, value) in component["Details"].as_object().into_iter().flatten() {
            if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
                line(cx, 2, heading(name), value)?;
            }
        }
    }
    Ok(())
}

/// Docker's words for the keys of a component's details.
fn heading(name: &str) -> &str {
    match name {
        "ApiVersion" => "API version",
        "MinAPIVersion" => "Minimum API version",
        "GitCommit" => "Git commit",
        "BuildTime" => "Built",
        "KernelVersion" => "Kernel",
        other => other,
    }
}

fn line(cx: &mut Context, depth: usize, name: &str, value: &str) -> Outcome<()> {
    let indent = " ".repeat(depth);
    let name = format!("{name}:");
    cx.out.line(format!("{indent}{name:<22}{value}"))
}
