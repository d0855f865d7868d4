//! `berth images`.

use berth_types::{ByteCount, Timestamp};
use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{integer, items, labels, short_id, size, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Column, Listing, Row, Style, ago, shown_time};
use crate::request::parse_filters;

const COLUMNS: [Column; 11] = [
    Column::new("ID", "IMAGE ID"),
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("Digest", "DIGEST"),
    Column::new("CreatedSince", "CREATED"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("Size", "SIZE"),
    Column::new("VirtualSize", "SIZE"),
    Column::new("SharedSize", "SHARED SIZE"),
    Column::new("UniqueSize", "UNIQUE SIZE"),
    Column::new("Containers", "CONTAINERS"),
];
const NONE: &str = "<none>";

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth images\n  \
    berth images --filter dangling=true -q\n  \
    berth images --format '{{.Repository}}:{{.Tag}} {{.Size}}' busybox")]
pub(crate) struct Arguments {
    /// Also intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that match (dangling=true, label=a=b, reference=busybox*)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, table TEMPLATE, json, or a template per line
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Not supported yet
    #[arg(long, hide = true)]
    tree: bool,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.tree {
        return Err(Failure::not_yet("images --tree: multi-platform images are not supported"));
    }
    let style = Style::parse(arguments.format.as_deref(), arguments.json)?;
    let mut filters = parse_filters(&arguments.filter)?;
    if let Some(reference) = &arguments.reference {
        filters.entry("reference".to_owned()).or_default().push(reference.clone());
    }
    let path = Query::new("/images/json").flag("all", arguments.all).filters(&filters).build();
    let answer = cx.client.get(&path)?;
    let images = answer.as_array().map_or(&[][..], Vec::as_slice);
    let now = Timestamp::now();
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| names(image).into_iter().map(move |name| row(image, name, now, arguments.no_trunc)))
        .collect();
    if arguments.quiet && style == Style::Table {
        for row in &rows {
            cx.out.line(row.get("ID").and_then(Value::as_str).unwrap_or_default())?;
        }
        return Ok(0);
    }
    let mut shown = vec!["Repository", "Tag"];
    if arguments.digests {
        shown.push("Digest");
    }
    shown.extend(["ID", "CreatedSince", "Size"]);
    Listing { known: &COLUMNS, shown: &shown, rows }.print(&style, &mut cx.out)?;
    Ok(0)
}

/// Repository, tag and digest of one row.
type Name = (String, String, String);

/// One row per tag; an image without a tag has one per digest, and without that one of its own.
fn names(image: &Value) -> Vec<Name> {
    let digests: Vec<(&str, &str)> =
        items(image, "RepoDigests").iter().filter_map(|name| name.as_str()?.split_once('@')).collect();
    let tags: Vec<(&str, &str)> = items(image, "RepoTags")
        .iter()
        .filter_map(|name| name.as_str()?.rsplit_once(':'))
        .filter(|(repository, _)| *repository != NONE)
        .collect();
    if tags.is_empty() && digests.is_empty() {
        return vec![(NONE.to_owned(), NONE.to_owned(), NONE.to_owned())];
    }
    if tags.is_empty() {
        let name =
            |(repository, digest): &(&str, &str)| ((*repository).to_owned(), NONE.to_owned(), (*digest).to_owned());
        return digests.iter().map(name).collect();
    }
    let digest_of = |repository: &str| {
        digests.iter().find(|(known, _)| *known == repository).map_or(NONE, |(_, digest)| *digest).to_owned()
    };
    tags.iter().map(|(repository, tag)| ((*repository).to_owned(), (*tag).to_owned(), digest_of(repository))).collect()
}

fn row(image: &Value, (repository, tag, digest): Name, now: Timestamp, no_trunc: bool) -> Row {
    let id = text(image, "Id");
    let created = integer(image, "Created");
    let bytes = |field: &str| match integer(image, field) {
        ..0 => "N/A".to_owned(),
        _ => ByteCount(size(image, field)).to_string(),
    };
    let containers = match integer(image, "Containers") {
        ..0 => "N/A".to_owned(),
        count => count.to_string(),
    };
    let unique = match (integer(image, "Size"), image["SharedSize"].as_i64()) {
        (whole, Some(shared @ 0..)) => ByteCount(u64::try_from(whole - shared).unwrap_or(0)).to_string(),
        _ => "N/A".to_owned(),
    };
    let mut row = Row::default();
    row.set("ID", if no_trunc { id.to_owned() } else { short_id(id) });
    row.set("Repository", repository);
    row.set("Tag", tag);
    row.set("Digest", digest);
    row.set("CreatedSince", ago(created, now));
    row.set("CreatedAt", shown_time(created));
    row.set("Size", bytes("Size"));
    row.set("VirtualSize", ByteCount(size(image, "Size")).precise());
    row.set("SharedSize", if image["SharedSize"].is_null() { "N/A".to_owned() } else { bytes("SharedSize") });
    row.set("UniqueSize", unique);
    row.set("Containers", containers);
    row.labels = labels(image);
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_row_per_name() {
        let check = |image: Value, expect: &[&str]| {
            let found: Vec<String> = names(&image).into_iter().map(|(r, t, d)| format!("{r} {t} {d}")).collect();
            assert_eq!(found, expect);
        };
        check(
            json!({"RepoTags": ["a:1", "h:5000/b:2"], "RepoDigests": ["a@sha256:1"]}),
            &["a 1 sha256:1", "h:5000/b 2 <none>"],
        );
        check(json!({"RepoTags": [], "RepoDigests": ["a@sha256:1"]}), &["a <none> sha256:1"]);
        check(json!({"RepoTags": ["<none>:<none>"], "RepoDigests": []}), &["<none> <none> <none>"]);
        check(json!({"RepoTags": null}), &["<none> <none> <none>"]);
    }

    #[test]
    fn rows() {
        let image = json!({"Id": "sha256:0123456789abcdef", "Created": 1, "Size": 4_860_000, "SharedSize": -1, "Containers": -1});
        let row = row(&image, ("a".into(), "b".into(), NONE.into()), Timestamp(61_000_000_000), false);
        assert_eq!(row.get("ID").unwrap(), "0123456789ab");
        assert_eq!(row.get("Size").unwrap(), "4.86MB");
        assert_eq!(row.get("CreatedSince").unwrap(), "About a minute ago");
        assert_eq!(row.get("Containers").unwrap(), "N/A");
        assert_eq!(row.get("UniqueSize").unwrap(), "N/A");
    }
}
