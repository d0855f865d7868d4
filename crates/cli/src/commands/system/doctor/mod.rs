//! `berth doctor`: what this host has, what will not work, and what to do. It needs no daemon, starts none, and changes nothing.

mod cgroups;
mod daemon;
mod files;
mod kernel;
mod limits;

use clap::Parser;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::Tabs;

/// Something will not work.
const ILL: u8 = 1;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth doctor\n  berth doctor --json | jq '.[] | select(.state != \"good\")'\n  \
        berth doctor --root /srv/berth\n\n\
        The exit code is 1 when something that every container needs is missing.")]
pub(crate) struct Arguments {
    /// Data root of the daemon, whose file system is looked at
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth")]
    root: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Good,
    /// Works, but something is missing, slower or small.
    Warn,
    /// Containers will not start, or not be safe.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: &'static str,
    name: &'static str,
    state: State,
    found: String,
    /// What will not work, and what to do; empty when all is well.
    advice: String,
}

impl Check {
    fn good(area: &'static str, name: &'static str, found: impl Into<String>) -> Self {
        Self { area, name, state: State::Good, found: found.into(), advice: String::new() }
    }

    fn warn(area: &'static str, name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warn, advice: advice.into(), ..Self::good(area, name, found) }
    }

    fn bad(area: &'static str, name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Bad, advice: advice.into(), ..Self::good(area, name, found) }
    }

    /// Good, or else what `otherwise` makes of it.
    fn when(
        is_good: bool,
        otherwise: fn(&'static str, &'static str, String, String) -> Self,
        area: &'static str,
        name: &'static str,
        found: impl Into<String>,
        advice: &str,
    ) -> Self {
        if is_good { Self::good(area, name, found) } else { otherwise(area, name, found.into(), advice.to_owned()) }
    }
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let mut checks = kernel::checks();
    checks.extend(cgroups::checks());
    checks.extend(limits::checks());
    checks.extend(files::checks(&arguments.root));
    checks.extend(daemon::checks(cx));
    if arguments.json {
        let list: Vec<Value> = checks.iter().map(document).collect();
        cx.out.line(Value::from(list))?;
    } else {
        cx.out.write(page(&checks).as_bytes())?;
    }
    Ok(if checks.iter().any(|check| check.state == State::Bad) { ILL } else { 0 })
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Warn => "warning",
        State::Bad => "bad",
    }
}

fn document(check: &Check) -> Value {
    json!({
        "area": check.area, "name": check.name, "state": state_name(check.state), "found": check.found,
        "advice": (!check.advice.is_empty()).then_some(&check.advice),
    })
}

fn page(checks: &[Check]) -> String {
    let mut table = String::new();
    let mut area = "";
    for check in checks {
        if check.area != area {
            area = check.area;
            table.push_str(&format!("{area}\n"));
        }
        let mark = match check.state {
            State::Good => " ",
            State::Warn => "?",
            State::Bad => "!",
        };
        table.push_str(&format!(
            "{mark} {}\t{}\t{}\n",
            check.name,
            check.found.replace(['\t', '\n'], " "),
            check.advice
        ));
    }
    let count = |state: State| checks.iter().filter(|check| check.state == state).count();
    let mut text = Tabs { width_min: 4, padding: 2 }.layout(&table);
    text.push_str(&format!(
        "{} good, {} warnings, {} bad\n",
        count(State::Good),
        count(State::Warn),
        count(State::Bad)
    ));
    text
}

/// A kernel file's first line; `None` when there is no such file.
fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    line(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let checks =
            [Check::good("kernel", "version", "6.18"), Check::bad("kernel", "overlay", "missing", "modprobe overlay")];
        assert_eq!(
            page(&checks),
            "kernel\n  version  6.18     \n! overlay  missing  modprobe overlay\n1 good, 0 warnings, 1 bad\n"
        );
        assert_eq!(document(&checks[1])["state"], "bad");
        assert!(document(&checks[0])["advice"].is_null());
    }
}
