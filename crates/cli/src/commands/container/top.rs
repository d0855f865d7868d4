//! `berth top`.

use clap::Parser;
use serde_json::Value;

use crate::client::Query;
use crate::commands::objects::{container_path, items};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth top CONTAINER [ps OPTIONS]",
    after_help = "Examples:\n  berth top web\n  berth top web -o pid,comm,rss"
)]
pub(crate) struct Arguments {
    /// One JSON object per process
    #[arg(long)]
    json: bool,
    /// The container, then options of ps
    #[arg(required = true, trailing_var_arg = true, value_names = ["CONTAINER", "PS_OPTION"])]
    words: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let (container, options) = arguments.words.split_at(1);
    let ps_args = (!options.is_empty()).then(|| options.join(" "));
    let path = Query::new(container_path(&container[0], "/top")?).maybe("ps_args", ps_args.as_deref());
    let answer = cx.client.get(&path.build())?;
    let titles: Vec<&str> = items(&answer, "Titles").iter().filter_map(Value::as_str).collect();
    let processes = items(&answer, "Processes").iter().filter_map(Value::as_array);
    if arguments.json {
        for process in processes {
            let fields = titles.iter().zip(process).map(|(title, cell)| ((*title).to_owned(), cell.clone())).collect();
            cx.out.line(Value::Object(fields))?;
        }
        return Ok(0);
    }
    let mut table = format!("{}\n", titles.join("\t"));
    for process in processes {
        let cells: Vec<String> =
            process.iter().map(|cell| cell.as_str().unwrap_or_default().replace(['\t', '\n'], " ")).collect();
        table.push_str(&format!("{}\n", cells.join("\t")));
    }
    cx.out.write(Tabs::WIDE.layout(&table).as_bytes())?;
    Ok(0)
}
