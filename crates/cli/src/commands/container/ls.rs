//! `berth ps`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use berth_types::{ByteCount, Timestamp};
use clap::Parser;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::client::{Query, parse};
use crate::commands::objects::{joined_labels, short_id};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Column, Listing, Row, Style, ago, shortened, shown_time};
use crate::request::parse_filters;

const COLUMNS: [Column; 15] = [
    Column::new("ID", "CONTAINER ID"),
    Column::new("Image", "IMAGE"),
    Column::new("Command", "COMMAND"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("RunningFor", "CREATED"),
    Column::new("Ports", "PORTS"),
    Column::new("State", "STATE"),
    Column::new("Status", "STATUS"),
    Column::new("Size", "SIZE"),
    Column::new("Names", "NAMES"),
    Column::new("Labels", "LABELS"),
    Column::new("Mounts", "MOUNTS"),
    Column::new("LocalVolumes", "LOCAL VOLUMES"),
    Column::new("Networks", "NETWORKS"),
    Column::new("Platform", "PLATFORM"),
];

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth ps -a\n  \
    berth ps -q --filter status=exited --filter label=app=web\n  \
    berth ps --format 'table {{.Names}}\\t{{.Status}}'")]
pub(crate) struct Arguments {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only those that match (status=exited, name=web, label=a=b, ancestor=busybox)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// The last created, in any state
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = -1, allow_hyphen_values = true, hide_default_value = true)]
    last: i64,
    /// The last created one
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let limit = if arguments.latest { 1 } else { arguments.last };
    let limit = (limit > 0).then(|| limit.to_string());
    let wants_size =
        arguments.size || matches!(&style, Style::Template(t) | Style::TableTemplate(t) if t.contains(".Size"));
    let path = Query::new("/containers/json")
        .flag("all", arguments.all || limit.is_some())
        .maybe("limit", limit.as_deref())
        .flag("size", wants_size)
        .filters(&parse_filters(&arguments.filter)?)
        .build();
    let answer = cx.client.get_bytes(&path)?;
    let containers: Vec<Container<'_>> = parse("GET", &path, &answer)?;
    if arguments.quiet && style == Style::Table {
        for container in &containers {
            if arguments.no_trunc { cx.out.line(&container.id)? } else { cx.out.line(short_id(&container.id))? }
        }
        return Ok(0);
    }
    let mut shown = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if arguments.size {
        shown.push("Size");
    }
    // The plain table takes seven fields of fifteen.
    let fields = if style == Style::Table { shown.clone() } else { COLUMNS.map(|column| column.field).to_vec() };
    let now = Timestamp::now();
    let rows = containers.iter().map(|container| row(container, &fields, now, arguments.no_trunc)).collect();
    Listing { known: &COLUMNS, shown: &shown, rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

/// One container of `GET /containers/json`, as much of it as is shown; the texts are the answer's.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    created: i64,
    names: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
    labels: Option<Map<String, Value>>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    mounts: Option<Vec<Mount>>,
    network_settings: Networks,
    image_manifest_descriptor: Descriptor,
    size_rw: i64,
    size_root_fs: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    r#type: String,
    name: String,
    source: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Networks {
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    platform: Platform,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
}

fn row(container: &Container<'_>, fields: &[&'static str], now: Timestamp, no_trunc: bool) -> Row {
    let mut row = Row::default();
    for field in fields {
        row.set(field, cell(container, field, now, no_trunc));
    }
    row.labels = container.labels.clone().unwrap_or_default();
    row
}

fn cell(container: &Container<'_>, field: &str, now: Timestamp, no_trunc: bool) -> String {
    let mounts = container.mounts.as_deref().unwrap_or_default();
    let cut = |text: &str, length: usize| if no_trunc { text.to_owned() } else { shortened(text, length) };
    let id = |id: &str| if no_trunc { id.to_owned() } else { short_id(id) };
    match field {
        "ID" => id(&container.id),
        "Image" if container.image.starts_with("sha256:") => id(&container.image),
        "Image" => container.image.clone().into_owned(),
        "Command" => format!("\"{}\"", cut(&container.command, 20)),
        "CreatedAt" => shown_time(container.created),
        "RunningFor" => ago(container.created, now),
        "Ports" => ports(container.ports.as_deref().unwrap_or_default()),
        "State" => container.state.clone().into_owned(),
        "Status" => container.status.clone().into_owned(),
        "Size" => sizes(container),
        "Names" => {
            let names = container.names.iter().flatten();
            names.map(|name| name.trim_start_matches('/')).collect::<Vec<_>>().join(",")
        }
        "Labels" => container.labels.as_ref().map(joined_labels).unwrap_or_default(),
        "Mounts" => {
            let sources = mounts.iter().map(|mount| if mount.name.is_empty() { &mount.source } else { &mount.name });
            sources.map(|source| cut(source, 15)).collect::<Vec<_>>().join(",")
        }
        "LocalVolumes" => mounts.iter().filter(|mount| mount.r#type == "volume").count().to_string(),
        "Networks" => {
            let networks = container.network_settings.networks.iter().flatten();
            networks.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
        }
        "Platform" => container.image_manifest_descriptor.platform.os.clone(),
        other => unreachable!("{other} is none of the columns"),
    }
}

/// Sizes that were not computed are 0 or -1.
fn sizes(container: &Container<'_>) -> String {
    let bytes = |size: i64| ByteCount(u64::try_from(size).unwrap_or(0));
    let own = bytes(container.size_rw);
    match container.size_root_fs {
        ..=0 => own.to_string(),
        whole => format!("{own} (virtual {})", bytes(whole)),
    }
}

/// One port of the API's list; in the order in which they are shown.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Port {
    private_port: i64,
    #[serde(rename = "IP")]
    ip: String,
    public_port: i64,
    r#type: String,
}

/// As Docker shows ports: neighbours of equal host and container numbers as ranges, then the others.
fn ports(list: &[Port]) -> String {
    let mut ports = list.to_vec();
    ports.sort();
    let mut mappings = Vec::new();
    let mut groups: Vec<(String, String, i64, i64)> = Vec::new();
    for port in ports {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            mappings.push(format!(
                "{}:{}->{}/{}",
                bracketed(&port.ip),
                port.public_port,
                port.private_port,
                port.r#type
            ));
            continue;
        }
        let same = groups
            .iter_mut()
            .find(|(ip, kind, _, last)| *ip == port.ip && *kind == port.r#type && *last + 1 == port.private_port);
        match same {
            Some((_, _, _, last)) => *last = port.private_port,
            None => groups.push((port.ip, port.r#type, port.private_port, port.private_port)),
        }
    }
    let mut parts: Vec<String> =
        groups.into_iter().map(|(ip, kind, first, last)| group(&ip, &kind, first, last)).collect();
    parts.append(&mut mappings);
    parts.join(", ")
}

fn group(ip: &str, kind: &str, first: i64, last: i64) -> String {
    let mut range = first.to_string();
    if last != first {
        write!(range, "-{last}").expect("writing to a String cannot fail");
    }
    if ip.is_empty() { format!("{range}/{kind}") } else { format!("{}:{range}->{range}/{kind}", bracketed(ip)) }
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn port_lists() {
        let port = |ip: &str, public: i64, private: i64| json!({"IP": ip, "PublicPort": public, "PrivatePort": private, "Type": "tcp"});
        let check = |list: &[Value], expect: &str| {
            let list: Vec<Port> = list.iter().map(|port| Port::deserialize(port).unwrap()).collect();
            assert_eq!(ports(&list), expect);
        };
        check(&[], "");
        check(&[json!({"PrivatePort": 80, "Type": "tcp"})], "80/tcp");
        check(&[port("0.0.0.0", 8080, 80), port("::", 8080, 80)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        check(&[port("0.0.0.0", 81, 81), port("0.0.0.0", 80, 80), port("0.0.0.0", 82, 82)], "0.0.0.0:80-82->80-82/tcp");
        check(&[json!({"PrivatePort": 53, "Type": "udp"}), port("0.0.0.0", 1, 2)], "53/udp, 0.0.0.0:1->2/tcp");
    }

    #[test]
    fn rows() {
        let container = serde_json::to_vec(&json!({
            "Id": "0123456789abcdef", "Image": "busybox:latest", "Command": "sleep 10000000000000000", "Created": 940,
            "Names": ["/web"], "Ports": [], "State": "running", "Status": "Up 3 minutes", "Labels": {"a": "b"},
            "SizeRw": 5, "SizeRootFs": 1_000_005, "Mounts": [], "NetworkSettings": {"Networks": {"bridge": {}}},
        }));
        let container = container.unwrap();
        let container: Container<'_> = serde_json::from_slice(&container).unwrap();
        assert!(matches!(container.image, Cow::Borrowed(_)));
        let row = row(&container, &COLUMNS.map(|column| column.field), Timestamp(1_000_000_000_000), false);
        let field = |name: &str| row.get(name).unwrap().as_str().unwrap().to_owned();
        assert_eq!(field("ID"), "0123456789ab");
        assert_eq!(field("Command"), "\"sleep 1000000000000…\"");
        assert_eq!(field("RunningFor"), "About a minute ago");
        assert_eq!(field("Size"), "5B (virtual 1MB)");
        assert_eq!(field("Networks"), "bridge");
    }
}
