//! Which bytes of a file are there.

use std::ops::Range;

/// Sorted ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(pub(super) Vec<Range<u64>>);

impl Ranges {
    /// The journal's part of it, one line each.
    pub(super) fn lines(&self, word: &str) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for range in &self.0 {
            writeln!(text, "{word}{} {}", range.start, range.end).expect("writing to a String cannot fail");
        }
        text
    }

    pub(super) fn add(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let at = self.0.partition_point(|range| range.end < new.start);
        let mut merged = new;
        let mut end = at;
        while let Some(range) = self.0.get(end).filter(|range| range.start <= merged.end) {
            merged = merged.start.min(range.start)..merged.end.max(range.end);
            end += 1;
        }
        self.0.splice(at..end, [merged]);
    }

    pub(super) fn prefix(&self) -> u64 {
        self.0.first().filter(|range| range.start == 0).map_or(0, |range| range.end)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    pub(super) fn missing(&self, total: u64) -> Vec<Range<u64>> {
        self.missing_of(0..total)
    }

    /// What of `wanted` is not there, in order.
    pub(super) fn missing_of(&self, wanted: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = wanted.start;
        for range in &self.0[self.0.partition_point(|range| range.end <= wanted.start)..] {
            if range.start >= wanted.end {
                break;
            }
            if range.start > at {
                gaps.push(at..range.start);
            }
            at = at.max(range.end);
        }
        if at < wanted.end {
            gaps.push(at..wanted.end);
        }
        gaps
    }
}

pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
