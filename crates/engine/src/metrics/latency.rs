//! Latency histograms: counted where an operation ends, whichever way it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::exposition::{Exposition, Number};

/// Upper bounds in microseconds: from a look-up to a pull.
const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 15_000_000,
    60_000_000,
];

/// By operation and whether it went well.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    histograms: Mutex<BTreeMap<(&'static str, bool), Histogram>>,
}

#[derive(Debug, Clone, Default)]
struct Histogram {
    /// Not cumulative; the last is everything above the bounds.
    buckets: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Latencies {
    fn record(&self, operation: &'static str, is_good: bool, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        let mut histograms = self.histograms.lock();
        let histogram = histograms.entry((operation, is_good)).or_default();
        histogram.buckets[bucket] += 1;
        histogram.sum_us = histogram.sum_us.saturating_add(us);
    }

    /// Begins to time an operation. One that is never told to be done counts as a failure: its caller gave up.
    pub(crate) fn begin(self: &Arc<Self>, operation: &'static str) -> OperationTimer {
        OperationTimer { latencies: Arc::clone(self), operation, begun: Instant::now(), is_good: false }
    }

    pub(super) fn write(&self, exposition: &mut Exposition) {
        const FAMILY: &str = "berth_operation_seconds";
        for ((operation, is_good), histogram) in self.histograms.lock().iter() {
            let labels = [("operation", *operation), ("result", if *is_good { "ok" } else { "error" })];
            let mut count = 0;
            for (bound, in_bucket) in BOUNDS_US.iter().zip(histogram.buckets) {
                count += in_bucket;
                let bound = Number::Microseconds(*bound).to_string();
                let all = [labels[0], labels[1], ("le", bound.as_str())];
                exposition.add_as(FAMILY, "_bucket", &all, Number::Whole(count));
            }
            count += histogram.buckets[BOUNDS_US.len()];
            exposition.add_as(FAMILY, "_bucket", &[labels[0], labels[1], ("le", "+Inf")], Number::Whole(count));
            exposition.add_as(FAMILY, "_sum", &labels, Number::Microseconds(histogram.sum_us));
            exposition.add_as(FAMILY, "_count", &labels, Number::Whole(count));
        }
    }
}

/// An operation under way.
#[derive(Debug)]
pub struct OperationTimer {
    latencies: Arc<Latencies>,
    operation: &'static str,
    begun: Instant,
    is_good: bool,
}

impl OperationTimer {
    /// It has ended.
    pub fn done(mut self, is_good: bool) {
        self.is_good = is_good;
    }
}

impl Drop for OperationTimer {
    fn drop(&mut self) {
        self.latencies.record(self.operation, self.is_good, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let latencies = Latencies::default();
        for us in [1, 500, 501, 90_000_000] {
            latencies.record("start", true, Duration::from_micros(us));
        }
        latencies.record("start", false, Duration::from_millis(2));
        let mut exposition = Exposition::default();
        latencies.write(&mut exposition);
        let text = exposition.finish();
        for line in [
            "berth_operation_seconds_bucket{operation=\"start\",result=\"ok\",le=\"0.000500\"} 2",
            "berth_operation_seconds_bucket{operation=\"start\",result=\"ok\",le=\"0.001000\"} 3",
            "berth_operation_seconds_bucket{operation=\"start\",result=\"ok\",le=\"60.000000\"} 3",
            "berth_operation_seconds_bucket{operation=\"start\",result=\"ok\",le=\"+Inf\"} 4",
            "berth_operation_seconds_count{operation=\"start\",result=\"ok\"} 4",
            "berth_operation_seconds_sum{operation=\"start\",result=\"ok\"} 90.001002",
            "berth_operation_seconds_count{operation=\"start\",result=\"error\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn an_operation_given_up_is_a_failure() {
        let latencies = Arc::new(Latencies::default());
        latencies.begin("a").done(true);
        drop(latencies.begin("b"));
        let counted: Vec<_> = latencies.histograms.lock().keys().copied().collect();
        assert_eq!(counted, [("a", true), ("b", false)]);
    }
}
