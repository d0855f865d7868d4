//! `--plan`: the steps of a start before the fact.

use serde_json::Value;

use crate::commands::objects::{items, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;
use crate::timeline::short_ids;

/// Prints the dry run: what would be done, to what, and why.
pub(super) fn print_plan(cx: &mut Context, plan: &Value, form: &str) -> Outcome {
    for warning in items(plan, "warnings").iter().filter_map(Value::as_str) {
        cx.out.notice(format!("warning: {warning}"));
    }
    if form == "json" {
        cx.out.line(plan)?;
        return Ok(0);
    }
    let mut table = "#\tPARTY\tSTEP\tOBJECT\tREASON\n".to_owned();
    for (number, step) in items(plan, "steps").iter().enumerate() {
        let cells = ["party", "name", "object", "reason"].map(|field| text(step, field).replace(['\t', '\n'], " "));
        table.push_str(&format!("{}\t{}\n", number + 1, short_ids(&cells.join("\t"))));
    }
    let tabs = Tabs { width_min: 4, padding: 2 };
    cx.out.write(tabs.layout(&table).as_bytes())?;
    Ok(0)
}
