//! `berth why`.

use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{container_path, integer, items, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth why [OPTIONS] CONTAINER",
    after_help = "Examples:\n  berth why web\n  berth why --json web | jq -r .cause\n\n\
        The facts are read at the end of the container: from waitid(2), its control group, and what clients asked for.\n\
        A container that removed itself (--rm) after a failure can be asked about for a while."
)]
pub(crate) struct Arguments {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let report = cx.client.get(&format!("/berth{}", container_path(&arguments.container, "/why")?))?;
    if arguments.json {
        cx.out.line(&report)?;
    } else {
        cx.out.write(shown(&report).as_bytes())?;
    }
    Ok(0)
}

fn shown(report: &Value) -> String {
    let mut page = format!("{}: {}\n", text(report, "name"), text(report, "verdict"));
    let mut table = String::new();
    for evidence in items(report, "evidence") {
        let cells = ["fact", "value", "source"].map(|field| text(evidence, field).replace(['\t', '\n'], " "));
        table.push_str(&format!("  {}\n", cells.join("\t")));
    }
    page.push_str(&Tabs { width_min: 4, padding: 2 }.layout(&table));
    let earlier = items(report, "earlier");
    if !earlier.is_empty() {
        page.push_str("  runs before\n");
        for end in earlier {
            page.push_str(&format!(
                "    {} code {} {}\n",
                text(end, "at"),
                integer(end, "exit_code"),
                text(end, "cause")
            ));
        }
    }
    let lines = items(report, "last_lines");
    if !lines.is_empty() {
        page.push_str("  last lines\n");
        for line in lines.iter().filter_map(Value::as_str) {
            page.push_str(&format!("    {}\n", visible(line)));
        }
    }
    if let Some(advice) = report["advice"].as_str() {
        page.push_str(&format!("hint: {advice}\n"));
    }
    page
}

/// A container's words must not steer the terminal.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn page() {
        let report = json!({
            "name": "web", "verdict": "it crashed", "advice": "look",
            "evidence": [{"fact": "exit", "value": "code 139", "source": "waitid(2)"}],
            "earlier": [{"at": "2026-01-01T00:00:00Z", "exit_code": 1, "cause": "exit-code"}],
            "last_lines": ["a\u{1b}[2Jb"],
        });
        assert_eq!(
            shown(&report),
            "web: it crashed\n  exit  code 139  waitid(2)\n  runs before\n    2026-01-01T00:00:00Z code 1 exit-code\n  \
             last lines\n    a\u{fffd}[2Jb\nhint: look\n"
        );
    }
}
