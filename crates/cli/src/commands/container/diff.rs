//! `berth diff`.

use clap::Parser;
use serde_json::json;

use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth diff web\n\nA: added, C: changed, D: deleted")]
pub(crate) struct Arguments {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Name or id
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let answer = cx.client.get(&container_path(&arguments.container, "/changes")?)?;
    for change in answer.as_array().into_iter().flatten() {
        let kind = match change["Kind"].as_i64() {
            Some(0) => "C",
            Some(1) => "A",
            Some(2) => "D",
            _ => return Err(Failure::new(format!("the daemon named an unknown kind of change: {change}"))),
        };
        let path = text(change, "Path");
        if arguments.json {
            cx.out.line(json!({"Kind": kind, "Path": path}))?;
        } else {
            cx.out.line(format!("{kind} {path}"))?;
        }
    }
    Ok(0)
}
