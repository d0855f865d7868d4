//! `berth inspect`: everything the daemon knows of an object, as its JSON, in its order.

use clap::Parser;
use serde_json::Value;

use super::objects::{container_path, image_path, network_path, volume_path};
use crate::client::{Payload, Query};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::indent_json;
use crate::output::template::{Data, Template};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth inspect web\n  \
    berth inspect -f '{{.State.Pid}}' web\n  \
    berth inspect --type image busybox")]
pub(crate) struct Arguments {
    /// Print with a template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Add the sizes of containers
    #[arg(short, long)]
    size: bool,
    /// Look at one kind only: container, image, network or volume
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let kinds = match arguments.kind.as_deref() {
        None => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        Some("container") => vec![Kind::Container],
        Some("image") => vec![Kind::Image],
        Some("network") => vec![Kind::Network],
        Some("volume") => vec![Kind::Volume],
        Some(other) => {
            return Err(
                Failure::not_yet(format!("inspect --type {other}")).hint("it is container, image, network or volume")
            );
        }
    };
    let style = Style::new(arguments.format.as_deref(), arguments.json)?;
    inspect(cx, &kinds, &arguments.names, arguments.size, &style)
}

/// What an object can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn path(self, name: &str, size: bool) -> Outcome<String> {
        match self {
            Self::Container => Ok(Query::new(container_path(name, "/json")?).flag("size", size).build()),
            Self::Image => image_path(name, "/json"),
            Self::Network => network_path(name, ""),
            Self::Volume => volume_path(name, ""),
        }
    }
}

/// How objects are printed.
#[derive(Debug)]
pub(crate) enum Style {
    /// One indented array of all.
    Array,
    Lines,
    Template(Template),
}

impl Style {
    pub(crate) fn new(format: Option<&str>, json: bool) -> Outcome<Self> {
        match format {
            Some(_) if json => Err(Failure::new("--format and --json exclude each other")),
            None if !json => Ok(Self::Array),
            None | Some("json") => Ok(Self::Lines),
            Some(text) => Template::parse(text).map(Self::Template),
        }
    }
}

/// Prints the objects that exist; fails at the end when one does not.
pub(crate) fn inspect(cx: &mut Context, kinds: &[Kind], names: &[String], size: bool, style: &Style) -> Outcome {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match find(cx, kinds, name, size) {
            Ok(json) => found.push(json),
            Err(failure) => failures.push(failure),
        }
    }
    match style {
        Style::Array => cx.out.line(indent_json(&format!("[{}]", found.join(",")), 0))?,
        Style::Lines => found.iter().try_for_each(|json| cx.out.line(json.trim()))?,
        Style::Template(template) => {
            for json in &found {
                let value: Value = serde_json::from_str(json)
                    .map_err(|error| Failure::new("the daemon's answer is not valid JSON").because(&error))?;
                cx.out.line(template.render(&Data { value: &value, labels: None })?)?;
            }
        }
    }
    cx.out.flush()?;
    let Some(last) = failures.pop() else { return Ok(0) };
    failures.iter().for_each(|failure| cx.out.notice(failure));
    Err(last)
}

fn find(cx: &mut Context, kinds: &[Kind], name: &str, size: bool) -> Outcome<String> {
    let mut missing = None;
    for kind in kinds {
        match cx.client.call_bytes("GET", &kind.path(name, size)?, Payload::Nothing) {
            Ok(bytes) => {
                return String::from_utf8(bytes).map_err(|_| Failure::new("the daemon's answer is not UTF-8 text"));
            }
            // A name that is malformed for one kind may be right for another.
            Err(failure) if failure.status == 404 || (failure.status == 400 && kinds.len() > 1) => {
                missing = Some(failure)
            }
            Err(failure) => return Err(failure),
        }
    }
    match missing {
        Some(failure) if kinds.len() == 1 => Err(failure),
        _ => Err(Failure { status: 404, ..Failure::new(format!("no such object: {name}")) }),
    }
}
