//! `berth explain path`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{integer, items, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth explain path [OPTIONS] IMAGE|CONTAINER PATH",
    after_help = "Examples:\n  berth explain path web /etc/hosts\n  berth explain path --json busybox /bin/sh\n\n\
        Layers are numbered from the bottom. Links on the way are followed, one at the end is told."
)]
pub(crate) struct Arguments {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[arg(value_name = "IMAGE|CONTAINER")]
    of: String,
    #[arg(value_name = "PATH")]
    path: OsString,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let query = Query::new("/berth/path").with("of", &arguments.of).with_bytes("path", arguments.path.as_bytes());
    let story = cx.client.get(&query.build())?;
    if arguments.json {
        cx.out.line(&story)?;
    } else {
        cx.out.write(shown(&story).as_bytes())?;
    }
    Ok(0)
}

fn shown(story: &Value) -> String {
    let mut page = format!("{}: {}\n", text(story, "path"), text(story, "verdict"));
    let mut table = String::new();
    for version in items(story, "versions") {
        let place = match version["layer"].as_u64() {
            Some(number) => format!("layer {number}"),
            None => "container".to_owned(),
        };
        let detail = match (version["by"].as_str(), version["link_target"].as_str(), version["size_bytes"].as_u64()) {
            (Some(by), _, _) => by.to_owned(),
            (None, Some(target), _) => format!("-> {target}"),
            (None, None, Some(size)) => format!("{:04o} {size} bytes", integer(version, "mode")),
            (None, None, None) => format!("{:04o} {}", integer(version, "mode"), text(version, "kind")),
        };
        let created_by: String = text(version, "created_by").chars().take(60).collect();
        let cells = [place, text(version, "what").replace('-', " "), detail, created_by];
        table.push_str(&format!("  {}\n", cells.map(|cell| cell.replace(['\t', '\n'], " ")).join("\t")));
    }
    page.push_str(&Tabs { width_min: 4, padding: 2 }.layout(&table));
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn page() {
        let story = json!({
            "path": "/etc/x", "verdict": "it is not there: layer 2 deleted /etc/x",
            "versions": [
                {"layer": 2, "what": "deleted-by-whiteout", "by": "/etc/x", "created_by": "RUN rm /etc/x"},
                {"layer": 1, "what": "added", "kind": "file", "size_bytes": 3, "mode": 420, "created_by": "COPY x /etc/"},
            ],
        });
        assert_eq!(
            shown(&story),
            "/etc/x: it is not there: layer 2 deleted /etc/x\n\
             \x20 layer 2  deleted by whiteout  /etc/x        RUN rm /etc/x\n\
             \x20 layer 1  added                0644 3 bytes  COPY x /etc/\n"
        );
    }
}
