//! What a filter answers on one architecture: ranges of numbers that share an answer.

use std::collections::{BTreeMap, HashMap};

use super::{ArgTest, Filter, multiplexed};
use crate::action::Action;
use crate::arch::{Arch, X32_BIT};

/// Everything about one value of `seccomp_data.arch`.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit_value: u32,
    /// First number of each range and its answer; begins at 0, ascending, neighbours differ.
    pub(super) ranges: Vec<(u32, Answer)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// Tested in order; all tests of an entry must hold.
    pub(super) tested: Vec<(Vec<ArgTest>, Action)>,
    /// When none holds. `None` while nothing was said, then the default.
    otherwise: Option<Action>,
}

impl Answer {
    fn always(action: Action) -> Self {
        Self { tested: Vec::new(), otherwise: Some(action) }
    }

    pub(super) fn otherwise(&self) -> Action {
        self.otherwise.unwrap_or(Action::KillProcess)
    }

    /// Fills in the default, and drops tests that change nothing.
    fn finish(mut self, default: Action) -> Self {
        let otherwise = self.otherwise.unwrap_or(default);
        while self.tested.last().is_some_and(|(_, action)| *action == otherwise) {
            self.tested.pop();
        }
        Self { otherwise: Some(otherwise), ..self }
    }
}

/// 32-bit ARM has a few calls of its own far above the others.
const ARM_PRIVATE: u32 = 0xf_0000;
/// A tracer that skips a call sets this number.
const SKIPPED: u32 = u32::MAX;
const ENOSYS: Action = Action::Errno(38);

pub(super) fn sections(filter: &Filter, arches: &[Arch]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for arch in arches.iter().filter(|arch| **arch != Arch::X32) {
        let mut starts = BTreeMap::new();
        add_ranges(filter, *arch, &mut starts);
        if *arch == Arch::X86_64 {
            starts.insert(X32_BIT, Answer::always(Action::KillProcess));
            if arches.contains(&Arch::X32) {
                add_ranges(filter, Arch::X32, &mut starts);
            }
            starts.insert(SKIPPED, Answer::always(newer_action(filter.default_action)));
        }
        let mut ranges: Vec<(u32, Answer)> = starts.into_iter().collect();
        ranges.dedup_by(|next, before| next.1 == before.1);
        sections.push(Section { audit_value: arch.audit_value(), ranges });
    }
    sections
}

/// The answer to calls that did not exist when the rules were written.
fn newer_action(default: Action) -> Action {
    match default {
        // A tracer answers by itself; the others let it through.
        Action::Allow | Action::Log | Action::Trace(_) => default,
        _ => ENOSYS,
    }
}

fn add_ranges(filter: &Filter, arch: Arch, starts: &mut BTreeMap<u32, Answer>) {
    let answers = answers(filter, arch);
    let base = arch.number_base();
    let default = filter.default_action;
    let highest = answers.keys().copied().filter(|number| arch != Arch::Arm || *number < ARM_PRIVATE).max();
    starts.insert(base, Answer::always(default));
    if let Some(highest) = highest {
        starts.insert(highest + 1, Answer::always(newer_action(default)));
    }
    for (number, answer) in answers {
        // What follows the call, unless another rule begins there.
        let after = match highest {
            Some(highest) if number >= highest => newer_action(default),
            _ => default,
        };
        starts.insert(number, answer.finish(default));
        starts.entry(number + 1).or_insert_with(|| Answer::always(after));
    }
}

/// The answers by number, of the calls the rules name.
fn answers(filter: &Filter, arch: Arch) -> BTreeMap<u32, Answer> {
    let numbers: HashMap<&str, u32> = arch.syscalls();
    let mut answers: BTreeMap<u32, Answer> = BTreeMap::new();
    for rule in &filter.rules {
        for name in &rule.names {
            if let Some(number) = numbers.get(name.as_str()) {
                let answer = answers.entry(*number).or_default();
                if rule.args.is_empty() {
                    let strictest = answer.otherwise.map_or(rule.action, |other| other.min(rule.action));
                    answer.otherwise = Some(strictest);
                } else {
                    answer.tested.extend(rule.alternatives().into_iter().map(|tests| (tests, rule.action)));
                }
            }
            if rule.args.is_empty()
                && let Some((carrier, test)) = multiplexed::carrier(name)
                && let Some(number) = numbers.get(carrier)
            {
                answers.entry(*number).or_default().tested.push((vec![test], rule.action));
            }
        }
    }
    answers
}
