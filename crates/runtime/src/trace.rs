//! Times of steps, taken in the caller and in init: init writes into a page shared with its creator, so that even the steps
//! right before exec, which may send nothing any more, are seen.

use std::sync::atomic::{AtomicU64, Ordering};

use berth_sys::shared::SharedNumbers;
use berth_types::{Party, Span};
use rustix::io::Errno;

use crate::plan::Step;

pub(crate) use berth_sys::clock::monotonic_ns as now_ns;

/// Start and end of every step of a plan.
#[derive(Debug)]
pub(crate) struct Times {
    numbers: SharedNumbers,
}

impl Times {
    pub(crate) fn new(steps: usize) -> Result<Self, Errno> {
        Ok(Self { numbers: SharedNumbers::new(steps.max(1) * 2)? })
    }

    fn cell(&self, index: usize) -> Option<&AtomicU64> {
        self.numbers.as_slice().get(index)
    }

    pub(crate) fn begin(&self, step: usize) {
        if let Some(cell) = self.cell(step * 2) {
            cell.store(now_ns(), Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self, step: usize) {
        if let Some(cell) = self.cell(step * 2 + 1) {
            cell.store(now_ns(), Ordering::Relaxed);
        }
    }

    /// The step that began last and has not ended.
    pub(crate) fn current(&self, steps: &[Step]) -> String {
        let open = |index: &usize| {
            let read = |i| self.cell(i).map_or(0, |cell| cell.load(Ordering::Relaxed));
            read(index * 2) != 0 && read(index * 2 + 1) == 0
        };
        (0..steps.len())
            .rev()
            .find(open)
            .and_then(|i| steps.get(i))
            .map_or_else(|| "start-up".to_owned(), |step| format!("{} {}", step.action.name(), step.object))
    }

    /// Whether the (first) step of this name has begun.
    pub(crate) fn has_begun(&self, steps: &[Step], name: &str) -> bool {
        let found = steps.iter().position(|step| step.action.name() == name);
        found.and_then(|index| self.cell(index * 2)).is_some_and(|cell| cell.load(Ordering::Relaxed) != 0)
    }

    /// Spans of the steps in `range` that have run; one that never ended (exec) ends now.
    pub(crate) fn spans(&self, steps: &[Step], range: std::ops::Range<usize>, spans: &mut Vec<Span>) {
        let now = now_ns();
        for index in range {
            let read = |i| self.cell(i).map_or(0, |cell| cell.load(Ordering::Relaxed));
            let (start_ns, end) = (read(index * 2), read(index * 2 + 1));
            let Some(step) = steps.get(index).filter(|_| start_ns != 0) else { continue };
            let end = if end == 0 { now } else { end };
            spans.push(Span {
                party: Party::Runtime,
                name: step.action.name().to_owned(),
                object: step.object.clone(),
                start_ns,
                duration_ns: end.saturating_sub(start_ns),
            });
        }
    }
}
