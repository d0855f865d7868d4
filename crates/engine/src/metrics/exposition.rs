//! Prometheus' text format 0.0.4: families known in advance, each written once with its help and type, samples below it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::family::{FAMILIES, Family, Kind};

/// An exposition in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    samples: BTreeMap<&'static str, String>,
}

/// A number as it is written: counters of nanoseconds keep all their digits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    /// Nanoseconds, shown as seconds.
    Nanoseconds(u64),
    /// Microseconds, shown as seconds.
    Microseconds(u64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Nanoseconds(ns) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            Self::Microseconds(us) => write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000),
        }
    }
}

impl Exposition {
    /// Adds a sample of a family. A family that is not in the table would be a mistake of ours, found by the tests.
    pub(super) fn add(&mut self, family: &'static str, labels: &[(&str, &str)], number: Number) {
        self.add_as(family, "", labels, number);
    }

    /// A sample with a suffix: `_bucket`, `_sum`, `_count` of a histogram.
    pub(super) fn add_as(&mut self, family: &'static str, suffix: &str, labels: &[(&str, &str)], number: Number) {
        debug_assert!(FAMILIES.iter().any(|known| known.name == family), "{family} is not in the table");
        let lines = self.samples.entry(family).or_default();
        lines.push_str(family);
        lines.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            lines.push(if index == 0 { '{' } else { ',' });
            lines.push_str(name);
            lines.push_str("=\"");
            escape(value, lines);
            lines.push('"');
        }
        if !labels.is_empty() {
            lines.push('}');
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(lines, " {number}");
    }

    /// The text, in the table's order; families without samples are left out.
    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        for Family { name, kind, help } in FAMILIES {
            let Some(lines) = self.samples.get(name) else { continue };
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }
}

fn escape(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let mut exposition = Exposition::default();
        exposition.add("berth_container_processes", &[("id", "a"), ("name", "we\"b\\\n")], Number::Whole(3));
        exposition.add("berth_container_cpu_usage_seconds_total", &[], Number::Nanoseconds(1_000_000_005));
        let text = exposition.finish();
        assert!(text.starts_with("# HELP berth_container_cpu_usage_seconds_total "), "{text}");
        assert!(text.contains("# TYPE berth_container_cpu_usage_seconds_total counter\nberth_container_cpu_usage_seconds_total 1.000000005\n"));
        assert!(text.ends_with("berth_container_processes{id=\"a\",name=\"we\\\"b\\\\\\n\"} 3\n"), "{text}");
        assert_eq!(Number::Microseconds(1_500_000).to_string(), "1.500000");
    }

    #[test]
    fn names_follow_the_rules() {
        for Family { name, kind, help } in FAMILIES {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == Kind::Counter || name.ends_with("cpu_seconds_total"),
                "{name}"
            );
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }
}
