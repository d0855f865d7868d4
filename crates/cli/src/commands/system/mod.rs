//! Verbs on the engine itself.

mod df;
mod doctor;
mod events;
mod fsck;
mod info;
mod prune;
mod version;

use super::Verb;
use super::verb;

pub(super) const VERBS: &[Verb] = &[
    verb!(["info", "system info"], "Show the engine and what this host offers it", info::Arguments, info::run),
    verb!(["version"], "Show the versions of client and daemon", version::Arguments, version::run),
    verb!(["events", "system events"], "Show what happens, as it happens", events::Arguments, events::run),
    verb!(
        ["doctor", "system doctor"],
        "Check this host: what will not work, and what to do",
        doctor::Arguments,
        doctor::run
    ),
    verb!(["system df"], "Show what takes disk space", df::Arguments, df::run),
    verb!(["fsck", "system fsck"], "Check the store of images, and mend it", fsck::Arguments, fsck::run),
    verb!(["system prune"], "Remove stopped containers and unused images", prune::Arguments, prune::run),
];
