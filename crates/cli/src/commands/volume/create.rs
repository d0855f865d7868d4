//! `berth volume create`.

use clap::Parser;
use serde_json::json;

use crate::commands::objects::text;
use crate::context::Context;
use crate::failure::Outcome;
use crate::request::{options_map, parse_labels};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth volume create data\n  \
    berth volume create --label project=web data\n  \
    berth volume create -o type=none -o o=bind -o device=/srv/data data")]
pub(crate) struct Arguments {
    /// Driver; there is local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Label (KEY=VALUE)
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Option of the driver: type=none, o=bind, device=/host/dir
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Name; without one it gets a long number
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let body = json!({
        "Name": arguments.name.unwrap_or_default(),
        "Driver": arguments.driver,
        "Labels": parse_labels(&arguments.label)?,
        "DriverOpts": options_map("--opt", &arguments.opt)?,
    });
    let made = cx.client.post("/volumes/create", Some(body))?;
    cx.out.line(text(&made, "Name"))?;
    Ok(0)
}
