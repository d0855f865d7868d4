//! `berth fsck`.

use berth_types::ByteCount;
use clap::Parser;

use crate::client::Query;
use crate::commands::objects::{integer, items, size, text};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth fsck\n  berth fsck --repair\n\n\
    Reads every blob, so it takes as long as reading the disk does. Containers go on running, and a layer that one runs\n\
    on is never touched. The exit code is 1 while something is wrong.")]
pub(crate) struct Arguments {
    /// Make again what can be made again, delete what belongs to nobody
    #[arg(long)]
    repair: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let report = cx.client.post(&Query::new("/berth/fsck").flag("repair", arguments.repair).build(), None)?;
    let open = integer(&report, "Open");
    if arguments.json {
        cx.out.line(&report)?;
        return Ok(u8::from(open > 0));
    }
    for problem in items(&report, "Problems") {
        let done = problem["Repair"].as_str().map(|repair| format!(" ({repair})")).unwrap_or_default();
        let (kind, object) = (text(problem, "Kind"), text(problem, "Object"));
        cx.out.line(format!("{kind} {object}: {}{done}", text(problem, "Problem")))?;
    }
    cx.out.line(format!(
        "{} images, {} blobs ({}), {} layers, {} records checked: {}",
        integer(&report, "Images"),
        integer(&report, "Blobs"),
        ByteCount(size(&report, "BlobBytes")),
        integer(&report, "Layers"),
        integer(&report, "Records"),
        match (items(&report, "Problems").len(), open) {
            (0, _) => "all in order".to_owned(),
            (_, 0) => "all in order now".to_owned(),
            (_, open) => format!("{open} problems"),
        }
    ))?;
    if open > 0 && !arguments.repair {
        cx.out.line("hint: berth fsck --repair mends what can be mended")?;
    }
    Ok(u8::from(open > 0))
}
