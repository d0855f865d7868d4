//! Trace Event Format (JSON object form), as chrome://tracing and Perfetto read it: complete events, one process per party.

use berth_types::Span;
use serde_json::{Value, json};

use super::{PARTIES, Timeline, end_ns, party_name, rank};

impl Timeline {
    pub(super) fn chrome(&self) -> String {
        let (first, _) = self.bounds();
        let lanes = self.lanes();
        let mut events: Vec<Value> = PARTIES
            .iter()
            .enumerate()
            .filter(|(_, (party, _))| self.spans.iter().any(|span| span.party == *party))
            .map(|(number, (_, name))| {
                json!({"ph": "M", "name": "process_name", "pid": number + 1, "args": {"name": name}})
            })
            .collect();
        events.extend(self.spans.iter().zip(lanes).map(|(span, lane)| {
            json!({"ph": "X", "name": span.name, "cat": party_name(span.party), "pid": rank(span.party) + 1, "tid": lane,
                   "ts": microseconds(span.start_ns - first), "dur": microseconds(span.duration_ns),
                   "args": {"object": span.object}})
        }));
        let document = json!({
            "displayTimeUnit": "ms",
            "otherData": {"operation": self.operation, "id": self.id},
            "traceEvents": events,
        });
        format!("{document}\n")
    }

    /// Events of one thread must be nested: spans of a party that overlap otherwise go to lanes of their own.
    fn lanes(&self) -> Vec<usize> {
        let mut placed: Vec<(usize, usize, &Span)> = Vec::new();
        let mut lanes = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let crosses = |other: &Span| {
                other.start_ns < end_ns(span)
                    && span.start_ns < end_ns(other)
                    && !(other.start_ns <= span.start_ns && end_ns(other) >= end_ns(span))
                    && !(span.start_ns <= other.start_ns && end_ns(span) >= end_ns(other))
            };
            let party = rank(span.party);
            let is_free = |lane: &usize| !placed.iter().any(|(p, l, other)| *p == party && l == lane && crosses(other));
            let lane = (1..).find(is_free).unwrap_or(1);
            placed.push((party, lane, span));
            lanes.push(lane);
        }
        lanes
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds with a fraction are what the format has")]
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::{span, timeline};
    use super::*;
    use berth_types::Party;

    #[test]
    fn crossing_spans_get_lanes() {
        let timeline = timeline(vec![
            span(Party::Engine, "start", 0, 100_000),
            span(Party::Engine, "network", 10_000, 20_000),
            span(Party::Engine, "shim", 15_000, 30_000),
            span(Party::Runtime, "mount", 50_500, 1_000),
        ]);
        let document: Value = serde_json::from_str(&timeline.chrome()).unwrap();
        let events = document["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 2 + 4);
        let lanes: Vec<_> = events[2..].iter().map(|event| event["tid"].as_u64().unwrap()).collect();
        assert_eq!(lanes, [1, 1, 2, 1]);
        assert_eq!((&events[5]["ts"], &events[5]["dur"]), (&50.5.into(), &1.0.into()));
    }
}
