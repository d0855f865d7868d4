//! OTLP/JSON (opentelemetry-proto, `ExportTraceServiceRequest` in protobuf's JSON form): one resource per party, one root span.

use serde_json::{Value, json};

use super::{PARTIES, Timeline, end_ns};

const SPAN_KIND_INTERNAL: u8 = 1;
/// The root has the first id; zero is no id.
const ROOT: usize = 1;

impl Timeline {
    pub(super) fn otlp(&self) -> String {
        let (first, last) = self.bounds();
        let parents = self.parents();
        let trace_id = self.trace_id(first);
        let span_id = |number: usize| format!("{:016x}", (first << 16).wrapping_add(number as u64));
        let root = json!({
            "traceId": trace_id, "spanId": span_id(ROOT), "name": self.operation, "kind": SPAN_KIND_INTERNAL,
            "startTimeUnixNano": self.unix_ns(first), "endTimeUnixNano": self.unix_ns(last),
            "attributes": [attribute("container.id", &self.id)], "status": {},
        });
        let mut resources = Vec::new();
        for (number, (party, name)) in PARTIES.iter().enumerate() {
            let mut spans: Vec<Value> = Vec::new();
            if number == 0 {
                spans.push(root.clone());
            }
            for (index, span) in self.spans.iter().enumerate().filter(|(_, span)| span.party == *party) {
                let parent = parents.get(index).copied().flatten().map_or(ROOT, |parent| parent + ROOT + 1);
                spans.push(json!({
                    "traceId": trace_id, "spanId": span_id(index + ROOT + 1), "parentSpanId": span_id(parent),
                    "name": span.name, "kind": SPAN_KIND_INTERNAL,
                    "startTimeUnixNano": self.unix_ns(span.start_ns), "endTimeUnixNano": self.unix_ns(end_ns(span)),
                    "attributes": [attribute("berth.object", &span.object)], "status": {},
                }));
            }
            if !spans.is_empty() {
                resources.push(json!({
                    "resource": {"attributes": [attribute("service.name", &format!("berth-{name}"))]},
                    "scopeSpans": [{"scope": {"name": "berth", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}],
                }));
            }
        }
        format!("{}\n", json!({ "resourceSpans": resources }))
    }

    /// Sixteen bytes: half of the id, and the moment, so that two starts of a container are two traces.
    fn trace_id(&self, first: u64) -> String {
        let half: String = self.id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        format!("{half:0>16}{first:016x}").to_ascii_lowercase()
    }

    /// A 64-bit number is a string in protobuf's JSON form.
    fn unix_ns(&self, monotonic_ns: u64) -> String {
        monotonic_ns.saturating_add_signed(self.clock_offset_ns).to_string()
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

#[cfg(test)]
mod tests {
    use super::super::tests::{span, timeline};
    use super::*;
    use berth_types::Party;

    #[test]
    fn one_tree_on_the_wall_clock() {
        let timeline = timeline(vec![
            span(Party::Client, "container.start", 10, 100),
            span(Party::Engine, "task.create", 20, 50),
            span(Party::Shim, "task.create", 25, 10),
        ]);
        let document: Value = serde_json::from_str(&timeline.otlp()).unwrap();
        let resources = document["resourceSpans"].as_array().unwrap();
        assert_eq!(resources.len(), 3);
        let spans: Vec<&Value> =
            resources.iter().flat_map(|r| r["scopeSpans"][0]["spans"].as_array().unwrap()).collect();
        assert_eq!(spans.len(), 4);
        assert_eq!(spans[0]["startTimeUnixNano"], "1010");
        assert!(spans[0]["parentSpanId"].is_null());
        for pair in spans.windows(2) {
            assert_eq!(pair[1]["parentSpanId"], pair[0]["spanId"]);
            assert_eq!(pair[1]["traceId"], pair[0]["traceId"]);
        }
        assert!(
            spans
                .iter()
                .all(|s| s["traceId"].as_str().unwrap().len() == 32 && s["spanId"].as_str().unwrap().len() == 16)
        );
    }
}
