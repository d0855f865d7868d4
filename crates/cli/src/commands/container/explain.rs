//! `berth explain`.

use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{container_path, integer, items, short_id, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;
use crate::timeline::short_ids;

/// As diff(1): found a difference.
const DRIFTED: u8 = 1;

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth explain [OPTIONS] CONTAINER",
    after_help = "Examples:\n  berth explain web\n  berth explain --drift web || echo somebody changed it\n  \
        berth explain --json web | jq '.lines[] | select(.section == \"mounts\")'\n\n\
        Each line has what is in force, the wish or default it comes from, and the kernel file that proves it. A line that begins \
        with ! is a drift: the kernel has something else than was asked for."
)]
pub(crate) struct Arguments {
    /// Show only what differs from what was asked; the exit code is 1 when something does
    #[arg(long)]
    drift: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let mut report = cx.client.get(&format!("/berth{}", container_path(&arguments.container, "/explain")?))?;
    let drifts = integer(&report, "drifts");
    if arguments.drift
        && let Some(lines) = report["lines"].as_array_mut()
    {
        lines.retain(|line| !line["drift"].is_null());
    }
    if arguments.json {
        cx.out.line(&report)?;
    } else {
        cx.out.write(shown(&report).as_bytes())?;
    }
    Ok(if arguments.drift && drifts > 0 { DRIFTED } else { 0 })
}

fn shown(report: &Value) -> String {
    let (name, id) = (text(report, "name"), short_id(text(report, "id")));
    let mut page = format!(
        "{name} ({id}), {}, pid {}, image {}\n",
        text(report, "status"),
        integer(report, "pid"),
        text(report, "image")
    );
    let lines = items(report, "lines");
    // One table for all, so that the columns stand below each other.
    let mut table = String::new();
    let mut section = "";
    for line in lines {
        if text(line, "section") != section {
            section = text(line, "section");
            table.push_str(&format!("{section}\n"));
        }
        table.push_str(&row(line));
    }
    page.push_str(&Tabs { width_min: 4, padding: 2 }.layout(&table));
    page.push_str(&match integer(report, "drifts") {
        0 => "no drift: everything is as it was asked for\n".to_owned(),
        1 => "1 drift\n".to_owned(),
        count => format!("{count} drifts\n"),
    });
    page
}

fn row(line: &Value) -> String {
    let clean = |field: &str| text(line, field).replace(['\t', '\n'], " ");
    let drift = line["drift"].as_str();
    let asked = line["asked"].as_str().unwrap_or("nothing");
    let in_force = line["in_force"].as_str();
    let value = match (drift, in_force) {
        (Some(_), in_force) => format!("{}, asked for {asked}", in_force.unwrap_or("nothing")),
        (None, Some(in_force)) => in_force.to_owned(),
        (None, None) => format!("{asked} (cannot be read back)"),
    };
    let reason = drift.map_or_else(|| clean("reason"), |drift| format!("{} -> {drift}", clean("reason")));
    let mark = if drift.is_some() { "!" } else { " " };
    format!(
        "{mark} {}\t{}\t{reason}\t{}\n",
        clean("object"),
        short_ids(&value.replace(['\t', '\n'], " ")),
        clean("proof")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn page() {
        let report = json!({
            "name": "web", "id": "0123456789abcdef", "status": "running", "pid": 7, "image": "i", "drifts": 1,
            "lines": [
                {"section": "cgroup", "object": "pids.max", "asked": "10", "in_force": "10", "reason": "flag --pids-limit", "proof": "/a", "drift": null},
                {"section": "cgroup", "object": "cpu.shares", "asked": null, "in_force": "7", "reason": "default", "proof": "/b", "drift": "by hand"},
                {"section": "devices", "object": "c 1:3 rwm", "asked": "allowed", "in_force": null, "reason": "default", "proof": "/c", "drift": null},
            ],
        });
        let expected = "\
web (0123456789ab), running, pid 7, image i
cgroup
  pids.max    10                    flag --pids-limit   /a
! cpu.shares  7, asked for nothing  default -> by hand  /b
devices
  c 1:3 rwm  allowed (cannot be read back)  default  /c
1 drift
";
        assert_eq!(shown(&report), expected);
    }
}
