//! `--plan` and `--trace`: the steps of a start, before and after the fact.

use berth_sys::clock::monotonic_ns as now_ns;
use berth_types::{Party, Span};
use serde_json::{Value, json};

use crate::commands::objects::{container_path, items, text};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Output, Tabs, bars};

const BAR_CELLS: usize = 30;

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

/// The steps of one start: ours, and the daemon's once fetched.
#[derive(Debug)]
pub(super) struct Timeline {
    begin_ns: u64,
    last_ns: u64,
    spans: Vec<Span>,
    id: String,
}

impl Timeline {
    /// Starts the clock.
    pub(super) fn begin() -> Self {
        let now = now_ns();
        Self { begin_ns: now, last_ns: now, spans: Vec::new(), id: String::new() }
    }

    /// The daemon's steps of a container that exists.
    pub(super) fn new(cx: &mut Context, id: &str) -> Self {
        let mut timeline = Self::begin();
        timeline.fetch(cx, id);
        timeline
    }

    /// Records what was done since the last step.
    pub(super) fn step(&mut self, name: &str, object: &str) {
        let now = now_ns();
        let object = object.get(..12).unwrap_or(object).to_owned();
        let span = Span {
            party: Party::Client,
            name: name.to_owned(),
            object,
            start_ns: self.last_ns,
            duration_ns: now.saturating_sub(self.last_ns),
        };
        self.spans.push(span);
        self.last_ns = now;
    }

    pub(super) fn run_until_exit(&mut self) {
        self.step("container.run", "");
    }

    /// Adds the daemon's spans; when there are none the print says so.
    pub(super) fn fetch(&mut self, cx: &mut Context, id: &str) {
        id.clone_into(&mut self.id);
        let Ok(path) = container_path(id, "/trace") else { return };
        match cx.client.get(&path) {
            Ok(Value::Array(spans)) => {
                self.spans.extend(spans.into_iter().filter_map(|span| serde_json::from_value::<Span>(span).ok()));
            }
            Ok(_) => cx.out.notice("warning: the daemon's trace is not a list of steps"),
            Err(failure) => cx.out.notice(format!("warning: no steps of the engine: {}", failure.message)),
        }
    }

    /// Prints on stderr: stdout is the container's.
    pub(super) fn print(mut self, cx: &mut Context, form: &str) -> Outcome<()> {
        cx.out.flush()?;
        self.spans.sort_by_key(|span| (span.start_ns, u64::MAX - span.duration_ns));
        let text = if form == "json" { self.json() } else { self.table() };
        Output::error_bytes(text.as_bytes());
        Ok(())
    }

    fn bounds(&self) -> (u64, u64) {
        let first = self.spans.iter().map(|span| span.start_ns).min().unwrap_or(self.begin_ns).min(self.begin_ns);
        let last = self.spans.iter().map(end_ns).max().unwrap_or(first).max(first);
        (first, last)
    }

    fn json(&self) -> String {
        let (first, last) = self.bounds();
        let inner = covered_ns(self.spans.iter().filter(|span| span.party != Party::Client));
        let sums: serde_json::Map<String, Value> = PARTIES
            .iter()
            .map(|(party, name)| {
                ((*name).to_owned(), covered_ns(self.spans.iter().filter(|s| s.party == *party)).into())
            })
            .collect();
        let report = json!({
            "id": self.id, "wall_ns": last - first, "engine_covered_ns": inner, "covered_ns": sums, "spans": self.spans,
        });
        format!("{report}\n")
    }

    fn table(&self) -> String {
        let (first, last) = self.bounds();
        let wall = (last - first).max(1);
        let mut table = "START\tTOOK\tPARTY\tSTEP\tTIMELINE\tOBJECT\n".to_owned();
        for span in &self.spans {
            let bar = bars(fraction(span.start_ns - first, wall), fraction(end_ns(span) - first, wall), BAR_CELLS);
            table.push_str(&format!(
                "{}\t{}\t{}\t{}\t{bar}\t{}\n",
                milliseconds(span.start_ns - first),
                milliseconds(span.duration_ns),
                party_name(span.party),
                span.name,
                short_ids(&span.object),
            ));
        }
        let tabs = Tabs { width_min: 4, padding: 2 };
        let mut text = tabs.layout(&table);
        let sums: Vec<String> = PARTIES
            .iter()
            .map(|(party, name)| (name, covered_ns(self.spans.iter().filter(|span| span.party == *party))))
            .filter(|(_, covered)| *covered > 0)
            .map(|(name, covered)| format!("{name} {} ms", milliseconds(covered)))
            .collect();
        text.push_str(&format!("wall {} ms; steps cover: {}\n", milliseconds(last - first), sums.join(", ")));
        text
    }
}

const PARTIES: [(Party, &str); 4] =
    [(Party::Client, "client"), (Party::Engine, "engine"), (Party::Shim, "shim"), (Party::Runtime, "runtime")];

fn party_name(party: Party) -> &'static str {
    PARTIES.iter().find(|(known, _)| *known == party).map_or("", |(_, name)| name)
}

fn end_ns(span: &Span) -> u64 {
    span.start_ns.saturating_add(span.duration_ns)
}

/// Time in which at least one of the spans was under way; overlaps count once.
fn covered_ns<'a>(spans: impl Iterator<Item = &'a Span>) -> u64 {
    let mut ranges: Vec<(u64, u64)> = spans.map(|span| (span.start_ns, end_ns(span))).collect();
    ranges.sort_unstable();
    let mut covered = 0;
    let mut reached = 0;
    for (start, end) in ranges {
        covered += end.saturating_sub(start.max(reached));
        reached = reached.max(end);
    }
    covered
}

#[expect(clippy::cast_precision_loss, reason = "a place on a bar of some cells")]
fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Ids of 64 digits as people see them: twelve.
pub(super) fn short_ids(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).collect();
    ids.into_iter().fold(text.to_owned(), |text, id| text.replace(id, &id[..12]))
}

/// Three decimals, right for columns: `0.123`.
fn milliseconds(ns: u64) -> String {
    let us = (ns + 500) / 1000;
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(party: Party, start_ns: u64, duration_ns: u64) -> Span {
        Span { party, name: "step".to_owned(), object: String::new(), start_ns, duration_ns }
    }

    #[test]
    fn overlaps_count_once() {
        let spans = [
            span(Party::Engine, 0, 10),
            span(Party::Engine, 5, 10),
            span(Party::Engine, 30, 5),
            span(Party::Engine, 31, 1),
        ];
        assert_eq!(covered_ns(spans.iter()), 20);
    }

    #[test]
    fn ids_are_short() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(short_ids(&format!("/tasks/{id}/hosts /etc")), "/tasks/0123456789ab/hosts /etc");
        assert_eq!(short_ids("plain"), "plain");
    }

    #[test]
    fn table() {
        let timeline = Timeline {
            begin_ns: 1_000_000,
            last_ns: 0,
            spans: vec![span(Party::Client, 1_000_000, 4_000_000), span(Party::Runtime, 2_000_000, 1_500_000)],
            id: "abc".to_owned(),
        };
        let text = timeline.table();
        assert_eq!(
            text,
            "START  TOOK   PARTY    STEP  TIMELINE                        OBJECT\n\
             0.000  4.000  client   step  ██████████████████████████████  \n\
             1.000  1.500  runtime  step  ·······███████████············  \n\
             wall 4.000 ms; steps cover: client 4.000 ms, runtime 1.500 ms\n"
        );
        let json: Value = serde_json::from_str(&timeline.json()).unwrap();
        assert_eq!(json["wall_ns"], 4_000_000);
        assert_eq!(json["engine_covered_ns"], 1_500_000);
        assert_eq!(json["spans"].as_array().unwrap().len(), 2);
    }
}
