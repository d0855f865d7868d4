//! `berth update`.

use bollard_stubs::models::HostConfig;
use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{container_path, items};
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::Output;
use crate::request::{LimitOptions, restart_policy};

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth update -m 512m --cpus 1.5 web\n  berth update --restart unless-stopped web db"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    limits: LimitOptions,
    /// Restart policy: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let mut host = HostConfig::default();
    arguments.limits.apply(&mut host)?;
    host.restart_policy = arguments.restart.as_deref().map(restart_policy).transpose()?;
    if host == HostConfig::default() {
        return Err(Failure::new("nothing to change").hint("give at least one limit, or --restart"));
    }
    let body =
        serde_json::to_value(host).map_err(|error| Failure::new("cannot write the request as JSON").because(&error))?;
    for_each(&arguments.containers, Output::report, |name| {
        let answer = cx.client.post(&container_path(name, "/update")?, Some(body.clone()))?;
        for warning in items(&answer, "Warnings").iter().filter_map(Value::as_str) {
            cx.out.notice(format!("warning: {warning}"));
        }
        cx.out.line(name)?;
        cx.out.flush()
    })
}
