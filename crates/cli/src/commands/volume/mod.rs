//! Verbs on volumes.

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use super::Verb;
use super::verb;

pub(crate) use prune::prune;

pub(super) const VERBS: &[Verb] = &[
    verb!(["volume create"], "Create a volume", create::Arguments, create::run),
    verb!(["volume ls", "volume list"], "List volumes", ls::Arguments, ls::run),
    verb!(["volume inspect"], "Show all that is known of volumes", inspect::Arguments, inspect::run),
    verb!(["volume rm", "volume remove"], "Remove volumes", rm::Arguments, rm::run),
    verb!(["volume prune"], "Remove unused volumes", prune::Arguments, prune::run),
];
