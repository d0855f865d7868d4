//! `berth image layers`.

use berth_types::ByteCount;
use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{integer, items, short_id, size, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth image layers busybox\n  berth image layers --files busybox")]
pub(crate) struct Arguments {
    /// Every name in each layer's archive, in its order
    #[arg(long)]
    files: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Name or id
    image: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let path = format!("/berth/images/{}/layers", Query::segment(&arguments.image));
    let layers = cx.client.get(&Query::new(path).flag("files", arguments.files).build())?;
    if arguments.json {
        cx.out.line(&layers)?;
        return Ok(0);
    }
    let layers: Vec<&Value> = layers.as_array().into_iter().flatten().collect();
    if arguments.files {
        for layer in layers {
            cx.out.line(format!("layer {} {}", integer(layer, "layer"), text(layer, "diff_id")))?;
            for name in items(layer, "files").iter().filter_map(Value::as_str) {
                cx.out.line(format!("  {}", name.escape_debug()))?;
            }
        }
        return Ok(0);
    }
    let mut table = "LAYER\tDIFF ID\tBLOB\tSIZE\tCREATED BY\n".to_owned();
    for layer in layers {
        table.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            integer(layer, "layer"),
            short_id(text(layer, "diff_id")),
            short_id(text(layer, "blob")),
            ByteCount(size(layer, "size_bytes")),
            text(layer, "created_by").replace(['\t', '\n'], " ").chars().take(60).collect::<String>(),
        ));
    }
    cx.out.write(Tabs::LISTING.layout(&table).as_bytes())?;
    Ok(0)
}
