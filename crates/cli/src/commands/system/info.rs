//! `berth info`.

use berth_types::ByteCount;
use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{integer, items, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::template::{Data, Template, shown};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth info\n  berth info -f '{{.CgroupVersion}} {{.Driver}}'")]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let info = cx.client.get("/info")?;
    match (arguments.format.as_deref(), arguments.json) {
        (Some(_), true) => return Err(Failure::new("--format and --json exclude each other")),
        (Some("json"), _) | (None, true) => cx.out.line(&info)?,
        (Some(format), _) => cx.out.line(Template::parse(format)?.render(&Data { value: &info, labels: None })?)?,
        (None, _) => print(cx, &info)?,
    }
    Ok(0)
}

fn print(cx: &mut Context, info: &Value) -> Outcome<()> {
    cx.out.line(format!("Client: Berth\n Version: {}\n\nServer:", env!("CARGO_PKG_VERSION")))?;
    for (name, field) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
    ] {
        cx.out.line(format!(" {name}: {}", integer(info, field)))?;
    }
    line(cx, "Server Version", text(info, "ServerVersion"))?;
    line(cx, "Storage Driver", text(info, "Driver"))?;
    for pair in items(info, "DriverStatus") {
        cx.out.line(format!("  {}: {}", shown(&pair[0]), shown(&pair[1])))?;
    }
    line(cx, "Logging Driver", text(info, "LoggingDriver"))?;
    line(cx, "Cgroup Driver", text(info, "CgroupDriver"))?;
    line(cx, "Cgroup Version", text(info, "CgroupVersion"))?;
    let runtimes: Vec<&str> =
        info["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    line(cx, "Runtimes", &runtimes.join(" "))?;
    line(cx, "Default Runtime", text(info, "DefaultRuntime"))?;
    let security = items(info, "SecurityOptions");
    if !security.is_empty() {
        cx.out.line(" Security Options:")?;
        for option in security.iter().filter_map(Value::as_str) {
            cx.out.line(format!("  {}", option.strip_prefix("name=").unwrap_or(option)))?;
        }
    }
    line(cx, "Kernel Version", text(info, "KernelVersion"))?;
    line(cx, "Operating System", text(info, "OperatingSystem"))?;
    line(cx, "OSType", text(info, "OSType"))?;
    line(cx, "Architecture", text(info, "Architecture"))?;
    cx.out.line(format!(" CPUs: {}", integer(info, "NCPU")))?;
    let memory = ByteCount(u64::try_from(integer(info, "MemTotal")).unwrap_or(0));
    line(cx, "Total Memory", &memory.binary())?;
    line(cx, "Name", text(info, "Name"))?;
    line(cx, "ID", text(info, "ID"))?;
    line(cx, "Docker Root Dir", text(info, "DockerRootDir"))?;
    features(cx, &info["Berth"])?;
    cx.out.flush()?;
    for warning in items(info, "Warnings").iter().filter_map(Value::as_str) {
        cx.out.notice(warning);
    }
    Ok(())
}

/// What the kernel of this host offers, as far as the daemon says.
fn features(cx: &mut Context, ours: &Value) -> Outcome<()> {
    let Some(features) = ours["Features"].as_object().or_else(|| ours["features"].as_object()) else { return Ok(()) };
    cx.out.line(" Kernel Features:")?;
    features.iter().try_for_each(|(name, value)| cx.out.line(format!("  {name}: {}", shown(value))))
}

fn line(cx: &mut Context, name: &str, value: &str) -> Outcome<()> {
    if value.is_empty() { Ok(()) } else { cx.out.line(format!(" {name}: {value}")) }
}
