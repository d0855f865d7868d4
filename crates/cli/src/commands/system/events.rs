//! `berth events`.

use berth_types::Timestamp;
use clap::Parser;
use serde_json::Value;

use crate::client::{JsonLines, Payload, Query};
use crate::commands::container::logs::api_time;
use crate::commands::objects::text;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::template::{Data, Template};
use crate::request::parse_filters;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth events --filter type=container --filter event=die\n  \
    berth events --since 1h --until 0s --json\n  \
    berth events --after 1041")]
pub(crate) struct Arguments {
    /// Begin behind this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// Only those that match (type=container, event=start, container=web, label=a=b)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// From this time on (2026-11-23T15:04:05Z, a Unix time, or 10m ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time, then end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let template = match (arguments.format.as_deref(), arguments.json) {
        (Some(_), true) => return Err(Failure::new("--format and --json exclude each other")),
        (Some("json"), _) | (None, true) => Some(Template::parse("{{json .}}")?),
        (Some(format), _) => Some(Template::parse(format)?),
        (None, _) => None,
    };
    let after = arguments.after.map(|sequence| sequence.to_string());
    let path = Query::new("/events")
        .maybe("since", api_time("--since", arguments.since.as_deref())?.as_deref())
        .maybe("until", api_time("--until", arguments.until.as_deref())?.as_deref())
        .maybe("after", after.as_deref())
        .filters(&parse_filters(&arguments.filter)?)
        .build();
    let stream = cx.client.stream("GET", &path, Payload::Nothing)?;
    for event in JsonLines::new(stream) {
        let event = event?;
        let text = match &template {
            Some(template) => template.render(&Data { value: &event, labels: None })?,
            None => shown(&event),
        };
        cx.out.line(text)?;
        cx.out.flush()?;
    }
    Ok(0)
}

/// `TIME TYPE ACTION ID (key=value, ...)`.
fn shown(event: &Value) -> String {
    let time = match event["timeNano"].as_i64() {
        Some(nanos) if nanos != 0 => Timestamp(nanos),
        _ => Timestamp(event["time"].as_i64().unwrap_or(0).saturating_mul(1_000_000_000)),
    };
    let actor = &event["Actor"];
    let mut line = format!("{time} {} {} {}", text(event, "Type"), text(event, "Action"), text(actor, "ID"));
    let attributes: Vec<String> = actor["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn line() {
        let event = json!({
            "Type": "container", "Action": "start", "time": 1, "timeNano": 1_000_000_002_i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "busybox"}},
        });
        assert_eq!(shown(&event), "1970-01-01T00:00:01.000000002Z container start abc (image=busybox, name=web)");
    }
}
