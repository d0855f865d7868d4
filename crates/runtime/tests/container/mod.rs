//! The tests by subject.

mod basics;

use crate::support::Test;

pub(crate) const TESTS: &[Test] = &[("runs_a_program", basics::runs_a_program)];
