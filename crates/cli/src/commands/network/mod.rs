//! Verbs on networks: to look only; the default ones are all there is.

mod inspect;
mod ls;

use super::Verb;
use super::verb;

pub(super) const VERBS: &[Verb] = &[
    verb!(["network ls", "network list"], "List networks", ls::Arguments, ls::run),
    verb!(["network inspect"], "Show all that is known of networks", inspect::Arguments, inspect::run),
];
