//! Timelines of starts and execs: spans of client, engine, shim and runtime on one clock, and the forms they are shown in.
//!
//! Every instant is attributed to the most specific span that was under way ([`Timeline::own_ns`]), so the steps add up to the wall time.

mod chrome;
mod deliver;
mod form;
mod otlp;
mod text;

use berth_sys::clock::monotonic_ns as now_ns;
use berth_types::{Party, Span, Timestamp};
use serde_json::{Value, json};

pub(crate) use form::Form;
use form::Kind;
pub(crate) use text::short_ids;

use crate::context::Context;
use crate::failure::Outcome;

/// From the person to the kernel: a later party works for an earlier one.
pub(crate) const PARTIES: [(Party, &str); 4] =
    [(Party::Client, "client"), (Party::Engine, "engine"), (Party::Shim, "shim"), (Party::Runtime, "runtime")];

/// The steps of one operation: ours, and the daemon's once fetched.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// What was done: `run`, `exec`, `start`.
    operation: &'static str,
    begin_ns: u64,
    last_ns: u64,
    spans: Vec<Span>,
    /// Of the container, or of the exec.
    id: String,
    /// Wall clock minus `CLOCK_MONOTONIC`.
    clock_offset_ns: i64,
}

impl Timeline {
    /// Starts the clock.
    pub(crate) fn begin(operation: &'static str) -> Self {
        let now = now_ns();
        let offset = i128::from(Timestamp::now().0) - i128::from(now);
        Self {
            operation,
            begin_ns: now,
            last_ns: now,
            spans: Vec::new(),
            id: String::new(),
            clock_offset_ns: i64::try_from(offset).unwrap_or(0),
        }
    }

    /// Steps that were recorded earlier, nothing of ours.
    pub(crate) fn recalled(operation: &'static str, report: &Value) -> Self {
        let mut timeline = Self::begin(operation);
        timeline.add(report);
        timeline.begin_ns = timeline.spans.iter().map(|span| span.start_ns).min().unwrap_or(timeline.begin_ns);
        if let Some(offset) = report["clock_offset_ns"].as_i64() {
            timeline.clock_offset_ns = offset;
        }
        timeline
    }

    /// Records what was done since the last step.
    pub(crate) fn step(&mut self, name: &str, object: &str) {
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

    /// Adds the daemon's spans; when there are none the print says so. `path` below `/berth`.
    pub(crate) fn fetch(&mut self, cx: &mut Context, path: &str) {
        match cx.client.get(path) {
            Ok(report) => self.add(&report),
            Err(failure) => cx.out.notice(format!("warning: no steps of the engine: {}", failure.message)),
        }
    }

    fn add(&mut self, report: &Value) {
        report["id"].as_str().unwrap_or_default().clone_into(&mut self.id);
        let spans = report["spans"].as_array().cloned().unwrap_or_default();
        self.spans.extend(spans.into_iter().filter_map(|span| serde_json::from_value::<Span>(span).ok()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Shows it in a form: on stderr (stdout is the container's), in a file, or at a collector.
    pub(crate) fn show(mut self, cx: &mut Context, form: &Form) -> Outcome<()> {
        cx.out.flush()?;
        self.spans.sort_by_key(|span| (span.start_ns, u64::MAX - span.duration_ns, rank(span.party)));
        let document = match form.kind {
            Kind::Text => self.table(),
            Kind::Json => self.json(),
            Kind::Chrome => self.chrome(),
            Kind::Otlp => self.otlp(),
        };
        deliver::deliver(&document, form)
    }

    fn bounds(&self) -> (u64, u64) {
        let first = self.spans.iter().map(|span| span.start_ns).min().unwrap_or(self.begin_ns).min(self.begin_ns);
        let last = self.spans.iter().map(end_ns).max().unwrap_or(first).max(first);
        (first, last)
    }

    fn json(&self) -> String {
        let (first, last) = self.bounds();
        let own = self.own_ns();
        let sums: serde_json::Map<String, Value> =
            PARTIES.iter().map(|(party, name)| ((*name).to_owned(), self.covered_by(*party).into())).collect();
        let inner = covered_ns(self.spans.iter().filter(|span| span.party != Party::Client));
        let spans: Vec<Value> = self
            .spans
            .iter()
            .zip(&own)
            .map(|(span, own)| {
                json!({"party": span.party, "name": span.name, "object": span.object, "start_ns": span.start_ns,
                       "duration_ns": span.duration_ns, "own_ns": own})
            })
            .collect();
        let report = json!({
            "id": self.id, "operation": self.operation, "wall_ns": last - first, "sum_ns": own.iter().sum::<u64>(),
            "engine_covered_ns": inner, "covered_ns": sums, "clock_offset_ns": self.clock_offset_ns, "spans": spans,
        });
        format!("{report}\n")
    }

    fn covered_by(&self, party: Party) -> u64 {
        covered_ns(self.spans.iter().filter(|span| span.party == party))
    }

    /// Each span's own share of the time: instants belong to the last party at work, of its spans to the one that began last.
    fn own_ns(&self) -> Vec<u64> {
        let mut edges: Vec<u64> = self.spans.iter().flat_map(|span| [span.start_ns, end_ns(span)]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut own = vec![0; self.spans.len()];
        for pair in edges.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let at_work = self.spans.iter().enumerate().filter(|(_, span)| span.start_ns <= from && end_ns(span) >= to);
            // Of two that began together the shorter one is the more specific.
            let specific = |(_, span): &(usize, &Span)| (rank(span.party), span.start_ns, u64::MAX - span.duration_ns);
            if let Some((index, _)) = at_work.max_by_key(specific) {
                own[index] += to - from;
            }
        }
        own
    }

    /// For each span the smallest one around it, of the same or an earlier party.
    fn parents(&self) -> Vec<Option<usize>> {
        let is_around = |outer: &Span, inner: &Span| {
            rank(outer.party) <= rank(inner.party)
                && outer.start_ns <= inner.start_ns
                && end_ns(outer) >= end_ns(inner)
                && (outer.duration_ns > inner.duration_ns || rank(outer.party) < rank(inner.party))
        };
        let parent = |inner: &Span| {
            let around = self.spans.iter().enumerate().filter(|(_, outer)| is_around(outer, inner));
            around.min_by_key(|(_, outer)| (outer.duration_ns, usize::MAX - rank(outer.party))).map(|(index, _)| index)
        };
        self.spans.iter().map(parent).collect()
    }
}

pub(crate) fn rank(party: Party) -> usize {
    PARTIES.iter().position(|(known, _)| *known == party).unwrap_or(0)
}

pub(crate) fn party_name(party: Party) -> &'static str {
    PARTIES.iter().find(|(known, _)| *known == party).map_or("", |(_, name)| name)
}

pub(crate) fn end_ns(span: &Span) -> u64 {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn span(party: Party, name: &str, start_ns: u64, duration_ns: u64) -> Span {
        Span { party, name: name.to_owned(), object: String::new(), start_ns, duration_ns }
    }

    pub(crate) fn timeline(spans: Vec<Span>) -> Timeline {
        let begin_ns = spans.first().map_or(0, |span| span.start_ns);
        Timeline { operation: "run", begin_ns, last_ns: 0, spans, id: "abc".to_owned(), clock_offset_ns: 1_000 }
    }

    #[test]
    fn overlaps_count_once() {
        let of = |start, duration| span(Party::Engine, "s", start, duration);
        assert_eq!(covered_ns([of(0, 10), of(5, 10), of(30, 5), of(31, 1)].iter()), 20);
    }

    #[test]
    fn shares_add_up_and_parents_are_the_smallest_around() {
        let timeline = timeline(vec![
            span(Party::Client, "container.start", 0, 100),
            span(Party::Engine, "container.start", 10, 80),
            span(Party::Engine, "network.attach", 10, 20),
            span(Party::Engine, "shim.start", 15, 30),
            span(Party::Engine, "task.create", 50, 30),
            span(Party::Shim, "task.create", 55, 20),
            span(Party::Runtime, "mount", 60, 10),
            span(Party::Client, "container.run", 100, 50),
        ]);
        let own = timeline.own_ns();
        assert_eq!(own, [20, 15, 5, 30, 10, 10, 10, 50]);
        assert_eq!(own.iter().sum::<u64>(), 150);
        assert_eq!(timeline.parents(), [None, Some(0), Some(1), Some(1), Some(1), Some(4), Some(5), None]);
    }
}
