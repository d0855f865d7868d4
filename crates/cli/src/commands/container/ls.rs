//! `berth ps`.

use std::fmt::Write as _;

use berth_types::{ByteCount, Timestamp};
use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{integer, items, joined_labels, labels, short_id, size, text};
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
    let answer = cx.client.get(&path)?;
    let containers = answer.as_array().map_or(&[][..], Vec::as_slice);
    if arguments.quiet && style == Style::Table {
        for container in containers {
            let id = text(container, "Id");
            if arguments.no_trunc { cx.out.line(id)? } else { cx.out.line(short_id(id))? }
        }
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows = containers.iter().map(|container| row(container, now, arguments.no_trunc)).collect();
    let mut shown = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if arguments.size {
        shown.push("Size");
    }
    Listing { known: &COLUMNS, shown: &shown, rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

fn row(container: &Value, now: Timestamp, no_trunc: bool) -> Row {
    let id = text(container, "Id");
    let created = integer(container, "Created");
    let command = text(container, "Command");
    let image = match text(container, "Image") {
        image if image.starts_with("sha256:") && !no_trunc => short_id(image),
        image => image.to_owned(),
    };
    let names: Vec<&str> =
        items(container, "Names").iter().filter_map(Value::as_str).map(|name| name.trim_start_matches('/')).collect();
    let mounts: Vec<String> = items(container, "Mounts")
        .iter()
        .map(|mount| if text(mount, "Name").is_empty() { text(mount, "Source") } else { text(mount, "Name") })
        .map(|source| if no_trunc { source.to_owned() } else { shortened(source, 15) })
        .collect();
    let volumes = items(container, "Mounts").iter().filter(|mount| text(mount, "Type") == "volume").count();
    let networks: Vec<String> = container["NetworkSettings"]["Networks"]
        .as_object()
        .map(|networks| networks.keys().cloned().collect())
        .unwrap_or_default();
    let labels = labels(container);
    let mut row = Row::default();
    row.set("ID", if no_trunc { id.to_owned() } else { short_id(id) });
    row.set("Image", image);
    row.set("Command", format!("\"{}\"", if no_trunc { command.to_owned() } else { shortened(command, 20) }));
    row.set("CreatedAt", shown_time(created));
    row.set("RunningFor", ago(created, now));
    row.set("Ports", ports(items(container, "Ports")));
    row.set("State", text(container, "State"));
    row.set("Status", text(container, "Status"));
    row.set("Size", sizes(container));
    row.set("Names", names.join(","));
    row.set("Labels", joined_labels(&labels));
    row.set("Mounts", mounts.join(","));
    row.set("LocalVolumes", volumes.to_string());
    row.set("Networks", networks.join(","));
    row.set("Platform", text(&container["ImageManifestDescriptor"]["platform"], "os"));
    row.labels = labels;
    row
}

fn sizes(container: &Value) -> String {
    let own = ByteCount(size(container, "SizeRw"));
    match size(container, "SizeRootFs") {
        0 => own.to_string(),
        whole => format!("{own} (virtual {})", ByteCount(whole)),
    }
}

/// One port of the API's list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    private: i64,
    ip: String,
    public: i64,
    kind: String,
}

/// As Docker shows ports: neighbours of equal host and container numbers as ranges, then the others.
fn ports(list: &[Value]) -> String {
    let mut ports: Vec<Port> = list
        .iter()
        .map(|port| Port {
            private: integer(port, "PrivatePort"),
            ip: text(port, "IP").to_owned(),
            public: integer(port, "PublicPort"),
            kind: text(port, "Type").to_owned(),
        })
        .collect();
    ports.sort();
    let mut mappings = Vec::new();
    let mut groups: Vec<(String, String, i64, i64)> = Vec::new();
    for port in ports {
        if !port.ip.is_empty() && port.public != port.private {
            mappings.push(format!("{}:{}->{}/{}", bracketed(&port.ip), port.public, port.private, port.kind));
            continue;
        }
        let same = groups
            .iter_mut()
            .find(|(ip, kind, _, last)| *ip == port.ip && *kind == port.kind && *last + 1 == port.private);
        match same {
            Some((_, _, _, last)) => *last = port.private,
            None => groups.push((port.ip, port.kind, port.private, port.private)),
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
        let check = |list: &[Value], expect: &str| assert_eq!(ports(list), expect);
        check(&[], "");
        check(&[json!({"PrivatePort": 80, "Type": "tcp"})], "80/tcp");
        check(&[port("0.0.0.0", 8080, 80), port("::", 8080, 80)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        check(&[port("0.0.0.0", 81, 81), port("0.0.0.0", 80, 80), port("0.0.0.0", 82, 82)], "0.0.0.0:80-82->80-82/tcp");
        check(&[json!({"PrivatePort": 53, "Type": "udp"}), port("0.0.0.0", 1, 2)], "53/udp, 0.0.0.0:1->2/tcp");
    }

    #[test]
    fn rows() {
        let container = json!({
            "Id": "0123456789abcdef", "Image": "busybox:latest", "Command": "sleep 10000000000000000", "Created": 940,
            "Names": ["/web"], "Ports": [], "State": "running", "Status": "Up 3 minutes", "Labels": {"a": "b"},
            "SizeRw": 5, "SizeRootFs": 1_000_005, "Mounts": [], "NetworkSettings": {"Networks": {"bridge": {}}},
        });
        let row = row(&container, Timestamp(1_000_000_000_000), false);
        let field = |name: &str| row.fields[name].as_str().unwrap().to_owned();
        assert_eq!(field("ID"), "0123456789ab");
        assert_eq!(field("Command"), "\"sleep 1000000000000…\"");
        assert_eq!(field("RunningFor"), "About a minute ago");
        assert_eq!(field("Size"), "5B (virtual 1MB)");
        assert_eq!(field("Networks"), "bridge");
    }
}
