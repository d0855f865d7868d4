//! Verbs on shims: to look only; they come and go with their tasks.

mod ls;

use super::Verb;
use super::verb;

pub(super) const VERBS: &[Verb] =
    &[verb!(["shim ls", "shim list"], "List shims and the tasks each of them serves", ls::Arguments, ls::run)];
